"""Leaks: test questions that the training rows hold, so that a score on them says nothing about new ones."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmad.prompt import Row

_NUMBER = r"\d+(?:[.,]\d+)*"


@dataclass(frozen=True)
class Leak:
    """How many questions of a test set are among the training rows.

    Attributes:
        task: the test set.
        n: its questions.
        exact: of these, the ones whose text is in the training rows, case and white space apart.
        masked: the ones whose text is there once every number is masked; the exact ones are among them.
    """

    task: str
    n: int
    exact: int
    masked: int

    def __str__(self) -> str:
        numbers = f", {self.masked - self.exact:,} more with other numbers" if self.masked > self.exact else ""
        return f"{self.exact:,} of {self.n:,} questions of {self.task} are among the training rows{numbers}"


def leak(training: Sequence[Row], task: str, tests: Sequence[Row]) -> Leak:
    """Count the questions of a test set that the training rows hold."""
    trained = {asked(row) for row in training}
    masks = {_masked(text) for text in trained}
    texts = [asked(row) for row in tests]
    return Leak(task, len(texts), sum(text in trained for text in texts), sum(_masked(text) in masks for text in texts))


def repeated(rows: Iterable[Row]) -> int:
    """How many rows ask what an earlier one has asked."""
    texts = [asked(row) for row in rows]
    return len(texts) - len(set(texts))


def asked(row: Row) -> str:
    """What a row asks, case and white space apart: two rows that ask the same are the same question."""
    return " ".join(" ".join(row.get(key, "") for key in ("context", "instruction", "input")).split()).casefold()


def _masked(text: str) -> str:
    return re.sub(_NUMBER, "#", text)
