"""Tests of significance, held to scipy's and to all flips counted one by one."""

import random
import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmad.significance import holm, mcnemar, paired

few = st.lists(st.integers(-3, 3), max_size=9)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 1), (3, 9), (40, 60), (7, 7), (0, 30)])
def test_mcnemar_is_the_exact_binomial_test(first, second):
    n = first + second
    known = stats.binomtest(first, n).pvalue if n else 1.0
    assert mcnemar(first, second) == pytest.approx(known, abs=1e-12)


@given(few)
def test_every_flip_of_signs_is_counted(differences):
    found = abs(sum(differences))
    flips = [abs(sum(map(int.__mul__, differences, signs))) for signs in product((1, -1), repeat=len(differences))]
    assert paired(differences) == pytest.approx(sum(flip >= found for flip in flips) / len(flips), abs=1e-8)


def test_it_is_scipys_permutation_test_of_pairs():
    differences = [2, -1, 1, 3, 0, 1, -2, 1, 1, 2]
    known = stats.permutation_test(
        ([*differences], [0] * 10), lambda a, b, axis: (a - b).sum(axis), permutation_type="samples", n_resamples=5000,
        vectorized=True,
    )  # fmt: skip
    assert paired(differences) == pytest.approx(known.pvalue, abs=1e-8)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_with_one_seed_it_is_mcnemars(first, second, same):
    assert paired([1] * first + [-1] * second + [0] * same) == pytest.approx(mcnemar(first, second), abs=1e-8)


@given(few)
def test_neither_adapter_is_the_first_one(differences):
    assert paired(differences) == paired([-one for one in differences])


def test_where_nothing_differs_there_is_no_difference():
    assert paired([]) == paired([0, 0]) == mcnemar(0, 0) == 1.0
    assert paired([1, -1]) == 1.0


def test_thousands_of_questions_take_no_time():
    source = random.Random(0)
    differences = [source.randint(-3, 3) for _ in range(10_000)]
    began = time.perf_counter()
    p = paired(differences)
    assert time.perf_counter() - began < 5
    deviation = sum(one * one for one in differences) ** 0.5
    # the sums of one parity are two apart
    assert p == pytest.approx(2 * stats.norm.sf((abs(sum(differences)) - 1) / deviation), abs=1e-4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_rule(values):
    found = holm(dict(enumerate(values)))
    order = sorted(range(len(values)), key=values.__getitem__)
    for rank, place in enumerate(order):
        known = max(min(1, (len(values) - before) * values[order[before]]) for before in range(rank + 1))
        assert found[place] == pytest.approx(known)


def test_holm_keeps_the_order_of_the_pairs():
    assert holm({"b": 0.01, "a": 0.04, "c": 0.03}) == {"b": 0.03, "a": 0.06, "c": 0.06}
