"""What answers are worth: counts, and intervals that agree with scipy's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmad.score import Answer, tally, wilson


def answer(index, correct, prediction="1", gold="1", tokens=5):
    return Answer("t", index, "?", "text", prediction, gold, correct, tokens)


def test_a_tally_counts():
    found = tally("t", [answer(0, True), answer(1, False, None, " 1 "), answer(2, False, "3", "2")], 1.23456)
    assert (found.n, found.correct, found.unparsed, found.unparsed_rate) == (3, 1, 1, 1 / 3)
    assert found.accuracy == 1 / 3
    assert found.majority == 2 / 3
    assert found.seconds == 1.235
    assert found.tokens_per_second == 12.2
    assert found.describe()["interval"] == list(found.interval)


def test_no_answers_are_no_accuracy_and_say_nothing():
    found = tally("t", [])
    assert (found.n, found.accuracy, found.majority, found.interval) == (0, 0.0, 0.0, (0.0, 1.0))


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_scipys(pair):
    expected = stats.binomtest(*pair).proportion_ci(0.95, method="wilson")
    assert wilson(*pair) == pytest.approx(tuple(expected), abs=1e-12)
