"""Significance: whether the same questions tell two adapters apart. Exact, and without torch or scipy.

Both adapters answer the same questions. If neither is better, which of the two had the better answers to a question is
the toss of a coin: the test flips the sign of each question's difference in all possible ways, and asks how often the
sum is as far from zero as it was found (Fisher's permutation test of pairs). With one seed a difference is -1, 0 or 1,
and the test is McNemar's exact one (McNemar, 1947). With several it is the sum over the seeds: the questions are drawn
anew in thought, the trained adapters are not.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

Pair = TypeVar("Pair")

LEVEL = 0.05  # below it a difference is called one
_FAR = 9  # standard deviations; beyond lies 1e-18 of all ways


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact McNemar test of two paired shares, two-sided.

    Args:
        only_first: questions that only the first had right.
        only_second: questions that only the second had right.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    ways = sum(math.comb(n, right) for right in range(fewer + 1))
    return min(1.0, 2 * ways / (1 << n))


def paired(differences: Sequence[int]) -> float:
    """The share of all flips of signs whose sum is at least as far from zero as that of the differences.

    Args:
        differences: of each question, right answers of the first over the seeds less those of the second.
    """
    found = abs(sum(differences))
    ways = {0: 1.0}
    for size, count in Counter(abs(one) for one in differences if one).items():
        ways = _added(ways, {size * steps: share for steps, share in _coins(count).items()})
    return min(1.0, math.fsum(share for total, share in ways.items() if abs(total) >= found))


def holm(values: Mapping[Pair, float]) -> dict[Pair, float]:
    """Correct p-values, so that several comparisons together mislead no oftener than one (Holm, 1979)."""
    corrected: dict[Pair, float] = {}
    highest = 0.0
    for rank, pair in enumerate(sorted(values, key=lambda pair: values[pair])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[pair]))
        corrected[pair] = highest
    return {pair: corrected[pair] for pair in values}


def _coins(count: int) -> dict[int, float]:
    """Heads less tails of so many coins, to its share of all ways; those further out than counts are left out."""
    all_ways, middle, reach = 2**count, count // 2, math.ceil(_FAR * math.sqrt(count) / 2)
    likely = range(max(0, middle - reach), min(count, middle + reach + 1) + 1)
    return {2 * heads - count: math.comb(count, heads) / all_ways for heads in likely}


def _added(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """The sum of two independent numbers, each to its share of the ways."""
    sums: dict[int, float] = {}
    for first, share in one.items():
        for second, also in other.items():
            sums[first + second] = sums.get(first + second, 0.0) + share * also
    return sums
