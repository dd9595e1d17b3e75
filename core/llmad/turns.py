"""Turns: adapters at one place, each for rows of its own, that meet one call of the place together.

One after another they would each cut their rows out of the batch and put them back. Together the batch is cut once and
joined once, and the place is asked once for all rows.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from llmad.around import Acting, Call, around, drawing, same, states_of, take_hidden, with_states
from llmad.dice import dice_of
from llmad.dropped import Drop, draw
from llmad.layers import Linear, frozen_linear, weight_of
from llmad.low_rank import updated
from llmad.packed import packed_rows
from llmad.part import Runs, part, runs, side_by_side
from llmad.update import Update

LowRank = tuple[Linear, Linear, float, float]


def turns(every: Iterable[Acting]) -> Iterator[list[Acting]]:
    """What acts at a host, innermost first, with those together that can meet one call; the others by themselves."""
    group: list[Acting] = []
    for acting in every:
        if group and not _fits(group, acting):
            yield group
            group = []
        group.append(acting)
    if group:
        yield group


def around_all(call: Call, group: list[Acting]) -> Call:
    """Wrap what `turns` gave around a call of the module."""
    nested = reduce(around, group, call)
    return _Turns(call, group, nested) if _simple(group[0]) else nested


def _fits(group: list[Acting], acting: Acting) -> bool:
    first = group[0]
    alike = acting.site == first.site and all(_simple(one) for one in (first, acting))
    return alike and all(set(one.stage.rows or ()).isdisjoint(acting.stage.rows or ()) for one in group)


def _simple(acting: Acting) -> bool:
    """One adapter for some rows, at a place that has one input and one output."""
    site = acting.site
    plain = not (site.rows or site.residual or acting.adapters[0].whole_call) and len(acting.adapters) == 1
    return plain and acting.stage.rows is not None


@dataclass(slots=True)
class _Turns:
    """Have each adapter act on its own rows: all at once where they are low-rank updates.

    Others get the batch cut into runs of rows, which are joined again. `nested` calls one adapter after another, which
    is for others whose rows are not side by side.
    """

    call: Call
    group: list[Acting]
    nested: Call
    known: tuple[Any, list[Runs]] = (None, [])  # the sizes of the last batch, and the runs of each adapter in it

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        adapter = self.group[0].adapters[0]
        x, others, named = take_hidden(cast(type, type(adapter.host)), args, kwargs)
        if (frozen := frozen_linear(self.call, x)) and (low := _low_rank(self.group)):
            found = self._runs(x)
            if not any(own[3] and len(where) > 1 for own, where in zip(low, found, strict=True)):
                return updated(frozen, x, list(_updates(self.group, low, found)))
        if not all(side_by_side(acting.stage.rows or ()) for acting in self.group):
            return self.nested(*args, **kwargs)
        return self._one_by_one(x, others, named)

    def _runs(self, x: Tensor) -> list[Runs]:
        """The runs of tokens of each adapter."""
        packed = packed_rows()
        key = (x.shape[:-1], packed and (packed.text, packed.lengths))
        known = self.known
        if known[0] != key:
            known = self.known = key, [runs(acting.stage, x) for acting in self.group]
        return known[1]

    def _one_by_one(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cut = _cut(self.group, x)
        pieces = cut.pieces(x)
        if self.group[0].site.before:
            changed = [update(same, own) if update else own for update, own in zip(cut.updates, pieces, strict=True)]
            return self.call(cut.joined(changed), *args, **kwargs)
        whole = self.call(x, *args, **kwargs)
        done = cut.pieces(states_of(whole))

        def base(number: int) -> Callable[[Tensor], Tensor]:
            def answer(y: Tensor) -> Tensor:
                if y is pieces[number]:
                    return done[number]
                other = self.call(cut.joined([*pieces[:number], y, *pieces[number + 1 :]]), *args, **kwargs)
                return cut.pieces(states_of(other))[number]

            return answer

        joined = cut.joined([update(base(n), pieces[n]) if update else done[n] for n, update in enumerate(cut.updates)])
        return with_states(whole, joined)


def _low_rank(group: list[Acting]) -> list[LowRank] | None:
    """What the adapters are, where all are low-rank updates of the place's output and nobody watches their calls."""
    if group[0].site.before:
        return None
    found = []
    for acting in group:
        one = acting.adapters[0]
        low = None if _watched(one) or not _says_so(cast(type, type(one))) else one.as_low_rank()
        if low is None:
            return None
        found.append(low)
    return found


@cache
def _says_so(cls: type) -> bool:
    """Whether a class that has a forward of its own also says what it is; a subclass's may do something else."""
    return next("as_low_rank" in vars(one) for one in cls.__mro__ if "forward" in vars(one))


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks or module._backward_hooks)


def _updates(group: list[Acting], every: list[LowRank], found: list[Runs]) -> Iterator[Update]:
    """The adapters' updates, one for each run of tokens."""
    for acting, (down, up, scale, share), own in zip(group, every, found, strict=True):
        drop = _drawn(acting, share) if share else None
        first, second = weight_of(down), weight_of(up)
        for start, stop in own:
            yield Update(start, stop, first, second, scale, drop)


def _drawn(acting: Acting, share: float) -> Drop:
    with dice_of(acting.stage.names[0]):
        return draw(share)


@dataclass(slots=True)
class _Cut:
    """How a batch is cut along a dimension: the sizes of its pieces, and the adapter of each, if it has one."""

    dim: int
    sizes: list[int]
    updates: list[Call | None]

    def add(self, size: int, update: Call | None) -> None:
        """Go on with a piece, unless it is empty."""
        if size:
            self.sizes.append(size)
            self.updates.append(update)

    def pieces(self, x: Tensor) -> list[Tensor]:
        """`x` in pieces; the gradient of all is one join."""
        return list(cast(Any, torch).split(x, self.sizes, self.dim))

    def joined(self, pieces: list[Tensor]) -> Tensor:
        """The inverse of `pieces`."""
        return torch.cat(pieces, dim=self.dim)


def _cut(group: list[Acting], x: Tensor) -> _Cut:
    """Cut a batch at the edges of the rows of each adapter."""
    runs = sorted((_run(acting, x) for acting in group), key=lambda run: run.start)
    cut, edge = _Cut(runs[0].dim, [], []), 0
    for run in runs:
        cut.add(run.start - edge, None)
        cut.add(run.stop - run.start, run.update)
        edge = run.stop
    cut.add(x.shape[cut.dim] - edge, None)
    return cut


class _Run(NamedTuple):
    """Where along a dimension an adapter acts."""

    dim: int
    start: int
    stop: int
    update: Call


def _run(acting: Acting, x: Tensor) -> _Run:
    found = part(acting.stage, x)
    assert found is not None
    assert isinstance(found.where, slice)
    return _Run(found.dim, found.where.start, found.where.stop, drawing(acting.adapters[0], acting.stage))
