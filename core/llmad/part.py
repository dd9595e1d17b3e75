"""Part: the rows of a batch that an adapter acts on, taken out of a tensor and put back; also where they are packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

from llmad.composition import Stage
from llmad.packed import packed_rows

Runs = list[tuple[int, int]]  # of entries that lie side by side: the first, and the one behind the last


@dataclass(frozen=True, slots=True)
class Part:
    """Some entries along one dimension: a slice where they lie side by side, their numbers elsewhere."""

    dim: int
    where: slice | tuple[int, ...]

    def take(self, x: Tensor) -> Tensor:
        """These entries of `x`."""
        if isinstance(self.where, slice):
            return x.narrow(self.dim, self.where.start, self.where.stop - self.where.start)
        return x.index_select(self.dim, torch.tensor(self.where, device=x.device))

    def put(self, x: Tensor, own: Tensor) -> Tensor:
        """`x` with `own` in place of these entries."""
        if isinstance(self.where, slice):
            before = x.narrow(self.dim, 0, self.where.start)
            after = x.narrow(self.dim, self.where.stop, x.shape[self.dim] - self.where.stop)
            return torch.cat((before, own, after), dim=self.dim)
        return x.index_copy(self.dim, torch.tensor(self.where, device=x.device), own)


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
        return _of_rows(stage, x.shape[0])
    return _of_packed(stage, packed.text, packed.lengths, x.shape[:2])


def runs(stage: Stage, x: Tensor) -> Runs:
    """The tokens of `x` that a stage for some rows acts on, counted through all leading sizes.

    Args:
        stage: adapters, and the rows of a batch that they are for.
        x: (..., width), its leading sizes as for `part`.

    Raises:
        ModelError: as `part` does.
    """
    found = part(stage, x)
    assert found is not None
    inner, where = prod(x.shape[found.dim + 1 : -1]), found.where
    edges = [(where.start, where.stop)] if isinstance(where, slice) else _in_runs(where)
    return [(start * inner, stop * inner) for start, stop in edges]


def side_by_side(rows: Sequence[int]) -> bool:
    """Whether rows, in order, have no others in between."""
    return rows[-1] - rows[0] + 1 == len(rows)


def _in_runs(entries: tuple[int, ...]) -> Runs:
    first = [entry for entry, before in zip(entries, (None, *entries), strict=False) if before != entry - 1]
    last = [entry for entry, after in zip(entries, (*entries[1:], None), strict=True) if after != entry + 1]
    return [(start, stop + 1) for start, stop in zip(first, last, strict=True)]


@lru_cache(256)  # every place of a forward pass asks for the same
def _of_rows(stage: Stage, size: int) -> Part:
    assert stage.rows is not None
    return _between(stage.rows, range(0, size + 1, stage.times(size)), 0)


@lru_cache(256)
def _of_packed(stage: Stage, text: tuple[int, ...], lengths: tuple[int, ...], sizes: tuple[int, ...]) -> Part:
    """Of rows that have `lengths` tokens, or only those of their text before virtual ones are put before them."""
    assert stage.rows is not None
    stage.times(len(text))
    flat = len(sizes) > 1 and sizes[0] in (sum(text), sum(lengths))
    dim = 0 if flat else 1
    outside = sizes[dim] == sum(text)  # of what puts virtual tokens before the rows
    return _between(stage.rows, [0, *accumulate(text if outside else lengths)], dim)


def _between(own: tuple[int, ...], edges: Sequence[int], dim: int) -> Part:
    """What is between the edges of some rows."""
    if side_by_side(own):
        return Part(dim, slice(edges[own[0]], edges[own[-1] + 1]))
    return Part(dim, tuple(entry for row in own for entry in range(edges[row], edges[row + 1])))
