"""Packed: what a forward pass knows of the rows that stand end to end in its one row of tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile

from torch import nn


@dataclass
class Rows:
    """The rows that are packed now.

    Attributes:
        text: how many tokens each has.
        own: the attention that the model has without packing.
        added: how many virtual tokens a module has put before each row.
    """

    text: tuple[int, ...]
    own: str | None
    added: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def lengths(self) -> tuple[int, ...]:
        """How long each row is within the model's attention."""
        return tuple(map(sum, zip(self.text, *self.added.values(), strict=True))) if self.added else self.text

    def lengthen(self, module: nn.Module, counts: tuple[int, ...]) -> tuple[int, ...]:
        """Have the attention know of the virtual tokens that a module puts before each row.

        Returns:
            How long each row is that comes to the module: the text, with the tokens of modules further out.
        """
        outer = takewhile(lambda entry: entry[0] != id(module), self.added.items())  # they came first, and stay there
        coming = tuple(map(sum, zip(self.text, *(added for _, added in outer), strict=True)))
        self.added[id(module)] = counts
        return coming


_now: Rows | None = None  # no context variable: backward passes recompute attention in threads of their own


def packed_rows() -> Rows | None:
    """The rows that are packed in the forward pass that goes on; None where rows are not packed.

    A module that puts something before every row does so before each of these, and tells them (`Rows.lengthen`).
    """
    return _now


@contextmanager
def packing(rows: Rows) -> Iterator[None]:
    """Within the block these rows are packed."""
    global _now
    before, _now = _now, rows
    try:
        yield
    finally:
        _now = before
