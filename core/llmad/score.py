"""Score: what answers are worth, with what a reader needs to judge it. No torch here: stored answers need none."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

_LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + _LEVEL) / 2)


@dataclass(frozen=True)
class Answer:
    """What the model wrote to one row, and what it was worth.

    Attributes:
        task: the task's name.
        index: the row's number, counted from 0.
        instruction: the question.
        output_pred: the text that the model wrote.
        prediction: the answer read from it; None where it gives none.
        answer: the right one.
        correct: whether they agree.
        tokens: length of the text in tokens.
    """

    task: str
    index: int
    instruction: str
    output_pred: str
    prediction: str | None
    answer: str
    correct: bool
    tokens: int

    def describe(self) -> dict[str, Any]:
        """The answer as plain data, for a file."""
        return asdict(self)


@dataclass(frozen=True)
class Score:
    """How a task went.

    Attributes:
        task: the task's name.
        n: rows.
        correct: right answers.
        accuracy: their share.
        interval: of the accuracy, at 95 % (Wilson, 1927).
        majority: share of the most frequent right answer: what is reached by always giving it.
        unparsed: texts that gave no answer; they count as wrong.
        seconds: wall time.
        tokens_per_second: tokens written in a second; 0 where nothing was.
    """

    task: str
    n: int
    correct: int
    accuracy: float
    interval: tuple[float, float]
    majority: float
    unparsed: int
    seconds: float
    tokens_per_second: float

    @property
    def unparsed_rate(self) -> float:
        """Share of the texts that gave no answer."""
        return self.unparsed / max(1, self.n)

    def describe(self) -> dict[str, Any]:
        """The score as plain data, for JSON."""
        return {**asdict(self), "interval": list(self.interval), "unparsed_rate": self.unparsed_rate}


def tally(task: str, answers: Iterable[Answer], seconds: float = 0.0) -> Score:
    """Count answers."""
    answers = list(answers)
    n, correct = len(answers), sum(answer.correct for answer in answers)
    golds = Counter(answer.answer.strip() for answer in answers)
    written = sum(answer.tokens for answer in answers)
    return Score(
        task=task,
        n=n,
        correct=correct,
        accuracy=correct / max(1, n),
        interval=wilson(correct, n),
        majority=max(golds.values(), default=0) / max(1, n),
        unparsed=sum(answer.prediction is None for answer in answers),
        seconds=round(seconds, 3),
        tokens_per_second=round(written / seconds, 1) if seconds else 0.0,
    )


def wilson(correct: float, n: int) -> tuple[float, float]:
    """The interval of a share at 95 %: Wilson's score interval, which keeps its promise for few rows and rare answers.

    Args:
        correct: right answers; in the mean, where they were given several times.
        n: all answers; the share may be anything where it is 0.
    """
    if not n:
        return 0.0, 1.0
    share, weight = correct / n, _Z**2 / n
    middle = (share + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    return max(0.0, round(middle - half, 12)), min(1.0, round(middle + half, 12))
