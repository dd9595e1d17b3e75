"""Explain: how the places of a model were found, in as many rows as there are kinds of places."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from llmad.layout import NUMBER, Confidence, Finding


@dataclass(frozen=True)
class Kind:
    """Places that differ in the numbers in their paths only.

    Attributes:
        places: their path, with `*` for a number.
        count: how many there are.
        role: the role they have; empty where they have none.
        confidence: how sure that is; see `layout.Finding`.
        why: in words.
    """

    places: str
    count: int
    role: str
    confidence: Confidence
    why: str

    def describe(self) -> dict[str, Any]:
        """The row as plain data, for JSON."""
        return asdict(self)


def kinds(findings: Iterable[Finding]) -> list[Kind]:
    """The findings of a layout, those of a kind together, in the model's order."""
    counts: dict[tuple[str, str, Confidence, str], int] = {}
    for finding in findings:
        key = NUMBER.sub("*", finding.path), finding.role, finding.confidence, finding.why
        counts[key] = counts.get(key, 0) + 1
    return [Kind(places, count, role, sure, why) for (places, role, sure, why), count in counts.items()]
