"""Composition: which adapters act, in which order, side by side or after one another, and on which rows of a batch.

activate(model, "a", "b")          a stack: b sees what a made of the place
activate(model, "a+b")             side by side: both see the base, their updates are summed
per_row(model, ["a", None, "b"])   the first row of a batch with a, the second without, the third with b
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import Tensor, arange, isin, tensor

from llmad.errors import ModelError, UsageError

Names = str | Sequence[str] | None  # one adapter or a sum `a+b`, a stack of them, or none


@dataclass(frozen=True)
class Stage:
    """Adapters that act at the same time, on all rows of a batch or on some.

    Attributes:
        names: the adapters; several act side by side.
        rows: numbers of the rows, of a batch of `batch`; all where None.
        batch: how many rows the numbers were given for.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...] | None = None
    batch: int = 0

    def mask(self, size: int) -> Tensor | None:
        """Which of `size` rows are meant, (size,) of bool; None where all are.

        Raises:
            ModelError: the rows of the batch are not those that were spoken of.
        """
        if self.rows is None:
            return None
        return isin(arange(self.batch), tensor(self.rows)).repeat_interleave(self.times(size))

    def times(self, size: int) -> int:
        """How often each row that was spoken of is among `size`.

        Beam search, and a linear map that is given (batch * length, width), have each row several times in a row.

        Raises:
            ModelError: the rows of the batch are not those that were spoken of.
        """
        if size % self.batch:
            raise ModelError(
                "other-rows",
                f"adapters were given for {self.batch} rows; the batch has {size}",
                "name one adapter, or None, for each row",
            )
        return size // self.batch


def stack(names: Iterable[str]) -> list[Stage]:
    """The stages of a stack, each `a` or `a+b`.

    Raises:
        UsageError: an adapter stands twice.
    """
    stages = [Stage(tuple(part.strip() for part in text.split("+"))) for text in names]
    every = [name for stage in stages for name in stage.names]
    if len(set(every)) < len(every):
        raise UsageError("name-twice", f"an adapter stands twice in {', '.join(every)}")
    return stages


def by_row(rows: Sequence[Names]) -> list[Stage]:
    """The stages of a batch whose rows have adapters of their own; rows with the same ones share a stage.

    Raises:
        UsageError: no row is given, or an adapter stands twice in one.
    """
    if not rows or isinstance(rows, str):
        raise UsageError("no-rows", f"{rows!r} are no rows", "give a list with one adapter, or None, for each row")
    stacks = [tuple(stack([names] if isinstance(names, str) else names or ())) for names in rows]
    return [
        _of_rows(stage.names, tuple(row for row, other in enumerate(stacks) if other == stages), len(rows))
        for stages in dict.fromkeys(stacks)
        for stage in stages
    ]


_of_rows = lru_cache(1024)(Stage)  # the very same for the same rows: places know at a glance that nothing changed


def acting(stages: Iterable[Stage]) -> set[str]:
    """The names of the adapters that act."""
    return {name for stage in stages for name in stage.names}


def without(stages: Iterable[Stage], name: str) -> list[Stage]:
    """The stages without an adapter."""
    left = (replace(stage, names=tuple(other for other in stage.names if other != name)) for stage in stages)
    return [stage for stage in left if stage.names]
