"""Splitting of data sets into rows to train on and rows to test with."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from llmad.leaks import asked
from llmad.prompt import Row

Sets = Mapping[str, Sequence[Row]]
Halves = dict[str, tuple[list[Row], list[Row]]]  # of each set, the rows to train on and those to test with


def by_seed(sets: Sets, share: float, seed: int) -> Halves:
    """Split each set by a seed; no question is on both sides, of whichever sets it is a row.

    Questions that are there several times are dealt out whole, each to the training rows with probability `share`;
    the others fill every set up to its share of rows.

    Args:
        sets: rows by the name of their set.
        share: of each set's rows that are trained on, rounded to whole rows.
        seed: fixes the choice.

    Returns:
        The halves, each in the order of its set.
    """
    source = random.Random(f"split/{seed}")
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name in sorted(sets):
        for index, row in enumerate(sets[name]):
            groups[asked(row)].append((name, index))
    dealt = list(groups.values())
    source.shuffle(dealt)
    room = Counter({name: round(share * len(rows)) for name, rows in sets.items()})
    trained: set[tuple[str, int]] = set()
    for group in (group for group in dealt if len(group) > 1):
        if source.random() < share and Counter(name for name, _ in group) <= room:
            trained.update(group)
            room.subtract(name for name, _ in group)
    for ((name, index),) in (group for group in dealt if len(group) == 1):
        if room[name] > 0:
            trained.add((name, index))
            room[name] -= 1
    return {name: _halves(name, rows, trained) for name, rows in sets.items()}


def by_training(sets: Sets, training: Sequence[Row]) -> Halves:
    """Rebuild a split from its training rows: the test rows are those that the training rows do not hold.

    Rows are matched one to one by their text: of a question that a set has twice and the training rows once, the
    second is a test row.
    """
    left = Counter(row["instruction"] for row in training)
    halves: Halves = {name: ([], []) for name in sets}
    for name, rows in sets.items():
        for row in rows:
            held = left[row["instruction"]] > 0
            left[row["instruction"]] -= held
            halves[name][0 if held else 1].append(row)
    return halves


def _halves(name: str, rows: Sequence[Row], trained: set[tuple[str, int]]) -> tuple[list[Row], list[Row]]:
    return (
        [row for index, row in enumerate(rows) if (name, index) in trained],
        [row for index, row in enumerate(rows) if (name, index) not in trained],
    )
