"""Part: the rows of a batch that an adapter acts on, taken out of a tensor and put back; also where they are packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from llmad.composition import Stage
from llmad.packed import packed_rows


@dataclass(frozen=True, slots=True)
class Part:
    """Some entries along one dimension: a slice where they lie side by side, their numbers elsewhere."""

    dim: int
    where: slice | Tensor

    def take(self, x: Tensor) -> Tensor:
        """These entries of `x`."""
        if isinstance(self.where, slice):
            return x.narrow(self.dim, self.where.start, self.where.stop - self.where.start)
        return x.index_select(self.dim, self.where.to(x.device))

    def put(self, x: Tensor, own: Tensor) -> Tensor:
        """`x` with `own` in place of these entries."""
        if isinstance(self.where, slice):
            before = x.narrow(self.dim, 0, self.where.start)
            after = x.narrow(self.dim, self.where.stop, x.shape[self.dim] - self.where.stop)
            return torch.cat((before, own, after), dim=self.dim)
        return x.index_copy(self.dim, self.where.to(x.device), own)


def part(stage: Stage, x: Tensor) -> Part | None:
    """What of `x` a stage acts on; None where it acts on all.

    Args:
        stage: adapters, and the rows of a batch that they are for.
        x: (rows, length, ...), or (rows * length, ...); (1, total, ...) or (total, ...) where rows are packed.

    Raises:
        ModelError: the rows of the batch are not those that were spoken of.
    """
    if stage.rows is None:
        return None
    packed = packed_rows()
    if packed is None:
        times = stage.times(x.shape[0])
        return _between(stage.rows, range(0, x.shape[0] + 1, times), 0)
    stage.times(len(packed.text))
    flat = x.dim() > 1 and x.shape[0] in (sum(packed.text), sum(packed.lengths))
    dim = 0 if flat else 1
    outside = x.shape[dim] == sum(packed.text)  # of what puts virtual tokens before the rows
    return _between(stage.rows, _edges(packed.text if outside else packed.lengths), dim)


@lru_cache(64)  # every place of a forward pass asks for the same
def _edges(lengths: tuple[int, ...]) -> list[int]:
    """Where rows of these lengths begin, and where the last one ends."""
    return [0, *accumulate(lengths)]


def _between(own: tuple[int, ...], edges: Sequence[int], dim: int) -> Part:
    """What is between the edges of some rows."""
    if own == tuple(range(own[0], own[-1] + 1)):
        return Part(dim, slice(edges[own[0]], edges[own[-1] + 1]))
    return Part(dim, torch.cat([torch.arange(edges[row], edges[row + 1]) for row in own]))
