"""Around: how an adapter meets the call of the place it sits at: at its input, at its output, or as a whole.

Each wrapper is a call with the signature of the one it wraps, so they nest. An adapter may own some output rows of
a fused linear, and act on some rows of the batch; the rest of the output stays what it was, bit for bit.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from llmad.composition import Stage
from llmad.dice import dice_of
from llmad.module import AdapterModule
from llmad.packed import packed_rows
from llmad.part import Part, part
from llmad.site import Rows, Site

Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Acting:
    """The adapters that act at one place at the same time, several where they stand side by side."""

    adapters: list[AdapterModule]
    site: Site
    stage: Stage


def around(call: Call, acting: Acting) -> Call:
    """Wrap adapters around a call of the module."""
    adapter, site = acting.adapters[0], acting.site
    place = cast(type, type(adapter.host))
    if adapter.whole_call:
        return _Whole(call, adapter, acting.stage, _arguments(place))
    update = drawing(adapter if len(acting.adapters) == 1 else _SideBySide(acting.adapters), acting.stage)
    if site.before:
        return _Before(call, update, site.rows, acting.stage, place)
    plain = site.rows is None and acting.stage.rows is None and issubclass(place, nn.Linear)
    return _After(call, update, site.rows, acting.stage, place, site.residual, plain)


def drawing(update: Call, stage: Stage) -> Call:
    """What acts, with random numbers from its own dice where rows have adapters of their own."""
    return update if stage.rows is None else _Drawing(update, stage.names[0])


@dataclass(slots=True)
class _Whole:
    """The adapter gets every argument by name and returns the whole output."""

    call: Call
    adapter: AdapterModule
    stage: Stage
    names: list[str]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs |= dict(zip(self.names, args, strict=False))
        packed = packed_rows()
        size = next((value.shape[0] for value in kwargs.values() if isinstance(value, Tensor)), 1)
        rows = self.stage.mask(len(packed.text) if packed else size)
        with dice_of(self.stage.names[0]):
            return self.adapter(self.call, rows=rows, **kwargs)


@dataclass(slots=True)
class _SideBySide:
    """Several adapters on the same input, their updates summed; the base is asked once."""

    adapters: list[AdapterModule]

    def __call__(self, base: Call, x: Tensor) -> Tensor:
        out: Tensor = base(x)

        def known(y: Tensor) -> Tensor:
            return out if y is x else base(y)

        return sum((adapter(known, x) - out for adapter in self.adapters), start=out)


@dataclass(slots=True)
class _Drawing:
    """The adapter draws its random numbers from a stream of its own."""

    adapter: Call
    name: str

    def __call__(self, base: Call, x: Tensor) -> Tensor:
        with dice_of(self.name):
            out: Tensor = self.adapter(base, x)
        return out


@dataclass(slots=True)
class _Before:
    """The adapter transforms the hidden states that come in: for the whole place, or for the rows of a role."""

    call: Call
    adapter: Call
    rows: Rows | None
    stage: Stage
    place: type

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x, args, kwargs = take_hidden(self.place, args, kwargs)
        own = part(self.stage, x)
        out = self.call(_put(x, self.adapter(same, _take(x, own)), own), *args, **kwargs)
        if not self.rows:
            return out
        return _put_rows(self.call(x, *args, **kwargs), _take_rows(out, self.rows), self.rows)


@dataclass(slots=True)
class _After:
    """The adapter transforms the hidden states that go out: all, or the rows of a role; before the residual.

    Where the adapter is for some rows of the batch only, the base still computes all rows at once. `plain` says that
    all rows of one input go in and of one output come out, with nothing to be put back.
    """

    call: Call
    adapter: Call
    rows: Rows | None
    stage: Stage
    place: type
    residual: str | None
    plain: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.plain and len(args) == 1 and not kwargs:
            return self.adapter(self.call, args[0])
        x, args, kwargs = take_hidden(self.place, args, kwargs)
        own = part(self.stage, x)
        mine, added = _take(x, own), None
        if self.residual:
            added, args, kwargs = _zero(self.place, self.residual, args, kwargs)
        whole: list[Any] = []  # what the place makes of its own input
        other: list[Any] = []  # and of another one, if the adapter asked for that

        def base(y: Tensor) -> Tensor:
            out = self.call(x if y is mine else _put(x, y, own), *args, **kwargs)
            (whole if y is mine else other)[:] = [out]
            return _take(self._part(out), own)

        out: Any = self.adapter(base, mine)
        if not whole and self.rows:
            base(mine)  # the rows of other roles are still wanted
        if not whole and not other and (self.residual or own is not None):
            base(mine)
        whole = whole or other
        if own is not None:
            out = _put(self._part(whole[0]), out, own)
        if self.rows:
            out = _put_rows(whole[0], out, self.rows)
        if added is not None:
            out = out + added
        return with_states(whole[0], out) if whole else out

    def _part(self, whole: Any) -> Tensor:
        """What the role owns of the place's output."""
        out = states_of(whole)
        return _take_rows(out, self.rows) if self.rows else out


def states_of(whole: Any) -> Tensor:
    """The hidden states of what a place returns: them alone, or the first of a tuple or a list."""
    out: Tensor = whole[0] if isinstance(whole, tuple | list) else whole
    return out


def with_states(whole: Any, out: Tensor) -> Any:
    """What a place returned, with other hidden states; a list stays one, since blocks add to it."""
    if isinstance(whole, tuple | list):
        return (out, *whole[1:]) if isinstance(whole, tuple) else [out, *whole[1:]]
    return out


def _take(x: Tensor, own: Part | None) -> Tensor:
    return x if own is None else own.take(x)


def _put(x: Tensor, mine: Tensor, own: Part | None) -> Tensor:
    """`x` with these rows of the batch in place of its own."""
    return mine if own is None else own.put(x, mine)


def same(x: Tensor) -> Tensor:
    """What an adapter in front of a place is given for its base."""
    return x


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # neither signatures nor caches can be traced
def _arguments(cls: Any) -> list[str]:
    """The names of the arguments of a class's forward."""
    return _named(cls)


@cache
def _named(cls: Any) -> list[str]:
    return list(inspect.signature(cls.forward).parameters)[1:]


def take_hidden(
    place: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The hidden states, which are the first argument however they are passed, and the other arguments."""
    if args:
        return args[0], args[1:], kwargs
    name = _arguments(place)[0]
    return kwargs[name], args, {key: value for key, value in kwargs.items() if key != name}


def _zero(
    place: type, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Take the residual out of the arguments: zero goes in, and the residual is added after the adapter."""
    if name in kwargs:
        return kwargs[name], args, {**kwargs, name: torch.zeros_like(kwargs[name])}
    number = _arguments(place).index(name) - 1  # the hidden states are already taken
    return args[number], (*args[:number], torch.zeros_like(args[number]), *args[number + 1 :]), kwargs


def _take_rows(out: Tensor, rows: Rows) -> Tensor:
    """(..., groups * stride) to the role's (..., groups * length)."""
    blocks = _blocks(out, rows.groups)
    return blocks[..., rows.start : rows.start + rows.length].flatten(-2)


def _put_rows(out: Tensor, part: Tensor, rows: Rows) -> Tensor:
    """Put the role's outputs back in their places."""
    blocks, middle = _blocks(out, rows.groups), _blocks(part, rows.groups)
    end = rows.start + rows.length
    return torch.cat((blocks[..., : rows.start], middle, blocks[..., end:]), dim=-1).flatten(-2)


def _blocks(out: Tensor, groups: int) -> Tensor:
    """(..., groups * n) to (..., groups, n)."""
    return out.reshape(*out.shape[:-1], groups, -1)
