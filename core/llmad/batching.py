"""Batching: how rows stand in a forward pass: packed where the model keeps them apart, below one another elsewhere."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from torch import nn

from llmad import data, packable, packing
from llmad.data import Batch, Example


@dataclass(frozen=True)
class Batching:
    """The way in which a run makes its batches.

    Attributes:
        pad: the id to pad with.
        way: how packed rows are kept apart; None where rows are padded.
        positions: whether the model is told the positions of packed rows.
        why: rows are padded, in a few words.
    """

    pad: int
    way: packing.Way | None = None
    positions: bool = True
    why: str = field(default="", compare=False)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """One batch of these rows."""
        if self.way is None:
            return data.padded(examples, self.pad)
        return data.packed(examples, self.positions)

    def within(self, model: nn.Module, batch: Batch) -> AbstractContextManager[None]:
        """Where the batch's forward and backward passes belong."""
        return nullcontext() if self.way is None else packing.apart(model, self.way, batch.lengths)

    @property
    def name(self) -> str:
        """In a word or two; a run that is gone on with must have the same."""
        return "padded" if self.way is None else f"packed ({self.way})"

    @property
    def told(self) -> str:
        """The same for people, who may wonder why rows are padded."""
        return f"{self.name}: {self.why}" if self.why else self.name


def batching(model: nn.Module, pad: int, wanted: bool) -> Batching:
    """Pack where it is wanted and the model, with what is attached to it, keeps packed rows apart."""
    way = packable.way(model) if wanted else None
    return Batching(pad, way, packing.takes_positions(model), "" if way else _why(model, [None], wanted))


def batching_together(model: nn.Module, names: Sequence[str], pad: int, wanted: bool) -> Batching:
    """Pack where the model keeps packed rows apart, whichever of these adapters some of the rows have."""
    ways = [packable.way(model, name) if wanted else None for name in names]
    way = ways[0] if len({*ways}) == 1 else None
    barred = [name for name, own in zip(names, ways, strict=True) if own is None]
    return Batching(pad, way, packing.takes_positions(model), "" if way else _why(model, barred, wanted))


def _why(model: nn.Module, names: Sequence[str | None], wanted: bool) -> str:
    """Why rows are padded: of the adapters with these names that cannot have them packed, the first."""
    if not wanted:
        return "packing=false"
    return packable.why_not(model, names[0]) if names else "the adapters need several ways of packing"
