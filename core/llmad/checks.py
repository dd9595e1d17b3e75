"""Checks: what is known of the training rows before the first step, and what of it the user should hear."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmad.data import Encoded
from llmad.leaks import Leak, leak, repeated
from llmad.prompt import Row


@dataclass(frozen=True)
class Checks:
    """Counts of the training rows.

    No answer is ever cut: a row that is too long is left out as a whole. Every row ends with a learnt end of sequence.

    Attributes:
        rows: trained on.
        left_out: longer than the model or the recipe has room for.
        empty: of an empty output: they teach the end of the text alone.
        repeated: ask what an earlier row has asked.
        tokens: of the rows that are trained on.
        trained_tokens: of these, the learnt ones.
        leaks: of each test set that was looked at, how many questions the training rows hold.
    """

    rows: int
    left_out: int
    empty: int
    repeated: int
    tokens: int
    trained_tokens: int
    leaks: tuple[Leak, ...] = ()

    @property
    def share(self) -> float:
        """Share of the tokens that are learnt."""
        return self.trained_tokens / self.tokens

    def warnings(self) -> list[str]:
        """What the user should hear."""
        found = {
            "rows have an empty output: they teach the end of the text alone": self.empty,
            "rows ask what an earlier row has asked": self.repeated,
        }
        said = [f"{count:,} {what}" for what, count in found.items() if count]
        leaking = (one for one in self.leaks if one.masked)
        return [*said, *(f"{one}: a score on them says nothing about new questions" for one in leaking)]

    def describe(self) -> dict[str, Any]:
        """The counts as plain data, for a file."""
        return asdict(self)


def check(rows: Sequence[Row], encoded: Encoded, tests: Mapping[str, Sequence[Row]]) -> Checks:
    """Look at training rows, and at how many questions of test sets they hold."""
    return Checks(
        rows=len(encoded.examples),
        left_out=encoded.left_out,
        empty=sum(not row["output"].strip() for row in rows),
        repeated=repeated(rows),
        tokens=encoded.tokens,
        trained_tokens=encoded.trained_tokens,
        leaks=tuple(leak(rows, task, asked) for task, asked in tests.items()),
    )
