"""Comparison: what several adapters' answers to the same questions say of them, in numbers and in words. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from llmad.markdown import code, plain
from llmad.score import wilson
from llmad.significance import LEVEL, holm, mcnemar, paired

BASE = "base"  # what the table calls the base, and so no adapter
_LEAST = 1e-15  # below it a p-value is what rounding makes of it
Marks = Sequence[Sequence[bool]]  # of each seed, whether each question was answered rightly


@dataclass(frozen=True)
class Size:
    """An adapter's spec, its trained parameters, and their share of all."""

    spec: str
    parameters: int
    share: float


@dataclass(frozen=True)
class Standing:
    """How an adapter did, or the base.

    Attributes:
        adapter: its name.
        size: None for the base.
        accuracies: of each seed.
        accuracy: their mean.
        interval: of the mean, at 95 %, as wide as one seed's (Wilson, 1927).
    """

    adapter: str
    size: Size | None
    accuracies: tuple[float, ...]
    accuracy: float
    interval: tuple[float, float]

    @property
    def spread(self) -> str:
        """The lowest and the highest of the seeds."""
        if len(self.accuracies) < 2:
            return "-"
        return f"{min(self.accuracies):.1%} to {max(self.accuracies):.1%}"


@dataclass(frozen=True)
class Pair:
    """Two adapters.

    Attributes:
        first: the one that is ahead, if any is.
        second: the other.
        difference: of their mean accuracies.
        p: of the exact test of pairs.
        corrected: by Holm's rule, for all pairs of the comparison.
    """

    first: str
    second: str
    difference: float
    p: float
    corrected: float

    @property
    def told_apart(self) -> bool:
        """Whether the questions show a difference."""
        return self.corrected < LEVEL


@dataclass(frozen=True)
class Comparison:
    """All of it; the adapters stand in the order of the study."""

    task: str
    questions: int
    seeds: tuple[int, ...]
    base: Standing
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]

    @property
    def best(self) -> Standing:
        """The adapter with the highest mean accuracy; the first of several."""
        return max(self.standings, key=lambda one: one.accuracy)

    @property
    def test(self) -> str:
        """What is tested, in words."""
        kind = "exact McNemar" if len(self.seeds) == 1 else "exact permutation of the questions' differences"
        return f"{kind}, two-sided, Holm's correction for {len(self.pairs)} pairs"

    def words(self) -> list[str]:
        """What may be said, a sentence each."""
        if not self.pairs:
            return ["There is one adapter, and none to compare it with."]
        apart = [pair for pair in self.pairs if pair.told_apart]
        rest = [pair for pair in self.pairs if not pair.told_apart]
        if not apart:
            least = min(pair.corrected for pair in self.pairs)
            return [
                f"These {self.questions:,} questions show no difference between the adapters: the smallest p is "
                f"{_p(least)}. That is not to say that there is none; more questions may show one."
            ]
        said = [
            f"{pair.first} is better than {pair.second} by {100 * pair.difference:.1f} points (p {_p(pair.corrected)})."
            for pair in apart
        ]
        named = ", ".join(f"{pair.first} and {pair.second} (p {_p(pair.corrected)})" for pair in rest)
        return said + ([f"These {self.questions:,} questions show no difference between {named}."] if rest else [])

    def rows(self) -> list[dict[str, str]]:
        """The table, the base first; differences are to the best."""
        return [self._row(one) for one in (self.base, *self.standings)]

    def _row(self, one: Standing) -> dict[str, str]:
        pair = next(
            (pair for pair in self.pairs if {pair.first, pair.second} == {one.adapter, self.best.adapter}), None
        )
        low, high = one.interval
        return {
            "adapter": one.adapter,
            "spec": one.size.spec if one.size else "-",
            "parameters": f"{one.size.parameters:,}" if one.size else "0",
            "share": f"{one.size.share:.2%}" if one.size else "-",
            "accuracy": f"{one.accuracy:.1%}",
            "spread": one.spread,
            "interval": f"{low:.1%} to {high:.1%}",
            "difference": "best" if one is self.best else f"{100 * (one.accuracy - self.best.accuracy):+.1f}",
            "p": _p(pair.corrected) if pair else "-",
        }

    def describe(self) -> dict[str, Any]:
        """The comparison as plain data, for JSON."""
        return {**asdict(self), "best": self.best.adapter, "test": self.test, "words": self.words()}

    def markdown(self) -> str:
        """A page that says the same."""
        rows = self.rows()
        for row in rows:
            row["spec"] = code(row["spec"]).replace("|", "\\|")
        lines = ["# Comparison", ""]
        lines += [f"Task {code(self.task)}, {self.questions:,} questions, seeds {', '.join(map(str, self.seeds))}.", ""]
        lines += [f"| {' | '.join(COLUMNS.values())} |", f"|{'---|' * len(COLUMNS)}"]
        cells = ([row[key] if key == "spec" else plain(row[key]) for key in COLUMNS] for row in rows)
        lines += [f"| {' | '.join(own)} |" for own in cells]
        lines += ["", f"Differences are in points, to the best; p: {self.test}.", ""]
        return "\n".join([*lines, *(f"- {plain(sentence)}" for sentence in self.words()), ""])


COLUMNS = {
    "adapter": "adapter",
    "spec": "spec",
    "parameters": "trained parameters",
    "share": "share",
    "accuracy": "accuracy",
    "spread": "over seeds",
    "interval": "95 % interval",
    "difference": "to the best",
    "p": "p",
}


def compared(
    task: str, seeds: Sequence[int], sizes: Mapping[str, Size], marks: Mapping[str, Marks], base: Sequence[bool]
) -> Comparison:
    """Compare adapters.

    Args:
        task: the task's name.
        seeds: those that each was trained with.
        sizes: of each adapter, by name.
        marks: of each adapter, for every seed and question whether the answer was right.
        base: the base's.
    """
    standings = tuple(_standing(name, size, marks[name]) for name, size in sizes.items())
    return Comparison(task, len(base), tuple(seeds), _standing(BASE, None, [base]), standings, _pairs(marks))


def _standing(name: str, size: Size | None, marks: Marks) -> Standing:
    shares = tuple(fmean(own) if own else 0.0 for own in marks)
    n = len(marks[0])
    return Standing(name, size, shares, fmean(shares), wilson(fmean(map(sum, marks)), n))


def _pairs(marks: Mapping[str, Marks]) -> tuple[Pair, ...]:
    raw = {(one, other): _tested(marks[one], marks[other]) for one, other in combinations(marks, 2)}
    corrected = holm({pair: p for pair, (_, p) in raw.items()})
    pairs = [Pair(*pair, difference, p, corrected[pair]) for pair, (difference, p) in raw.items()]
    return tuple(pair if pair.difference >= 0 else _turned(pair) for pair in pairs)


def _turned(pair: Pair) -> Pair:
    return Pair(pair.second, pair.first, -pair.difference, pair.p, pair.corrected)


def _tested(one: Marks, other: Marks) -> tuple[float, float]:
    """The difference of the mean accuracies, and the p-value of no difference."""
    right = list(zip(_over_seeds(one), _over_seeds(other), strict=True))
    difference = sum(first - second for first, second in right) / max(1, len(right) * len(one))
    if len(one) == 1:
        p = mcnemar(sum(first > second for first, second in right), sum(first < second for first, second in right))
    else:
        p = paired([first - second for first, second in right])
    return difference, p


def _over_seeds(marks: Marks) -> list[int]:
    """Of each question, how many seeds had it right."""
    return [sum(answers) for answers in zip(*marks, strict=True)]


def _p(value: float) -> str:
    if value < _LEAST:
        return f"below {_LEAST:.0e}"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
