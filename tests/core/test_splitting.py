"""Splits: exact in number, and no question on both sides."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad import rows
from llmad.leaks import asked, leak
from llmad.sets import sets_in
from llmad.splitting import by_seed, by_training

MATH = Path(__file__).parents[2].parent / "shared" / "data" / "math"
SIX = ["addsub", "aqua", "gsm8k", "multiarith", "singleeq", "svamp"]
HELD_OUT = {"addsub": 79, "multiarith": 120, "singleeq": 102, "gsm8k": 264, "aqua": 51, "svamp": 200}
present = pytest.mark.skipif(not MATH.is_dir(), reason=f"the math sets are not at {MATH}")
QUESTIONS = st.lists(
    st.integers(0, 30).map(lambda number: {"instruction": f"question {number}", "output": "1"}), max_size=40
)
SETS = st.dictionaries(st.sampled_from("abc"), QUESTIONS, min_size=1)


@given(SETS, st.floats(0.1, 0.9), st.integers(0, 5))
def test_a_seeded_split_deals_out_every_row_once_and_no_question_twice(sets, share, seed):
    halves = by_seed(sets, share, seed)
    for name, whole in sets.items():
        train, test = halves[name]
        assert Counter(map(asked, train + test)) == Counter(map(asked, whole))
        assert len(train) <= round(share * len(whole))
    trained = {asked(row) for train, _ in halves.values() for row in train}
    assert not trained & {asked(row) for _, test in halves.values() for row in test}


@given(SETS, st.integers(0, 5))
def test_the_order_of_the_sets_does_not_change_a_seeded_split(sets, seed):
    turned = dict(reversed(sets.items()))
    assert by_seed(turned, 0.5, seed) == by_seed(sets, 0.5, seed)


@given(st.integers(0, 60), st.floats(0.1, 0.9))
def test_sets_of_different_questions_are_split_exactly(count, share):
    sets = {"a": [{"instruction": f"question {number}", "output": "1"} for number in range(count)]}
    train, test = by_seed(sets, share, 0)["a"]
    assert (len(train), len(test)) == (round(share * count), count - round(share * count))


@given(SETS, st.floats(0.1, 0.9), st.integers(0, 5))
def test_a_split_is_rebuilt_from_its_training_rows(sets, share, seed):
    halves = by_seed(sets, share, seed)
    trained = [row for train, _ in halves.values() for row in train]
    rebuilt = by_training(sets, trained)
    count = lambda made: Counter(asked(row) for _, test in made.values() for row in test)  # noqa: E731
    assert count(rebuilt) == count(halves)


def test_rows_are_matched_one_to_one():
    twice = {"instruction": "a", "output": "1"}
    assert by_training({"s": [twice, twice]}, [twice]) == {"s": ([twice], [twice])}


def test_another_seed_is_another_split():
    sets = {"a": [{"instruction": f"question {number}", "output": "1"} for number in range(50)]}
    assert by_seed(sets, 0.5, 0) != by_seed(sets, 0.5, 1)


@present
@pytest.mark.parametrize("seed", range(3))
def test_the_six_sets_are_split_as_the_paper_counts_them(seed):
    halves = by_seed(sets_in(MATH, SIX), 0.8, seed)
    assert {name: len(test) for name, (_, test) in halves.items()} == HELD_OUT
    trained = [row for train, _ in halves.values() for row in train]
    assert len(trained) == 3260
    assert not any(leak(trained, name, test).exact for name, (_, test) in halves.items())


@present
def test_the_papers_split_is_rebuilt():
    halves = by_training(sets_in(MATH, SIX), rows.read(MATH / "train.json", "train").rows)
    assert {name: len(test) for name, (_, test) in halves.items()} == HELD_OUT
    assert sum(len(train) for train, _ in halves.values()) == 3260
