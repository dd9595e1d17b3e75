"""The host: the module at a site, which calls its adapters around its own forward.

A module becomes a host by having its class swapped for a subclass with an `adapters` ModuleDict (as PyTorch's
FSDP2 does); nothing else about it changes, so the model stays the same object, the base keeps its state-dict
keys, and quantised linears keep their own forward. Swapping the class back gives the plain module again.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn

from llmad.errors import ModelError
from llmad.module import AdapterModule
from llmad.site import Rows, Site

Call = Callable[..., Any]
_SLOTS = "_llmad_sites"  # name and slot of each adapter here to its site
_ACTIVE = "_llmad_active"  # the names of the active adapters, innermost first; one list for the whole model


class Host:
    """What an adapted module's class gains; it stands in front of the module's own class."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward with the active adapters around it, the first of them innermost."""
        call = super().forward  # type: ignore[misc]  # the module's own class comes next
        for adapter, site in active_here(cast(nn.Module, self)):
            call = _around(call, adapter, site)
        return call(*args, **kwargs)


def active_here(module: nn.Module) -> Iterator[tuple[AdapterModule, Site]]:
    """The active adapters of a host with their sites, innermost first."""
    adapters, places = cast(nn.ModuleDict, module.adapters), getattr(module, _SLOTS)
    for name in getattr(module, _ACTIVE):
        if name in adapters:
            for slot, adapter in cast(nn.ModuleDict, adapters[name]).items():
                yield cast(AdapterModule, adapter), places[name, slot]


def mount(module: nn.Module, name: str, site: Site, adapter: AdapterModule, active: list[str]) -> None:
    """Put an adapter at a module, which becomes a host if it is none yet."""
    if not isinstance(module, Host):
        module.__class__ = _host_class(cast(type, type(module)))
        module.adapters = nn.ModuleDict()
        setattr(module, _SLOTS, {})
        setattr(module, _ACTIVE, active)
        _rebind(module)
    adapters = cast(nn.ModuleDict, module.adapters)
    if name not in adapters:
        adapters[name] = nn.ModuleDict()
    cast(nn.ModuleDict, adapters[name])[site.slot] = adapter
    getattr(module, _SLOTS)[name, site.slot] = site


def unmount(module: nn.Module, name: str) -> None:
    """Take an adapter out again; a module that holds no other is what it was before."""
    adapters, places = cast(nn.ModuleDict, module.adapters), getattr(module, _SLOTS)
    del adapters[name]
    for key in [key for key in places if key[0] == name]:
        del places[key]
    if not adapters:
        del module.adapters
        delattr(module, _SLOTS)
        delattr(module, _ACTIVE)
        module.__class__ = type(module).__mro__[2]  # the class itself, Host, the module's own class
        _rebind(module)


def check_mountable(module: nn.Module, path: str) -> None:
    """Refuse a module whose instance carries a forward of its own: the class's would never be called."""
    plain = MethodType(type(module).forward, module)
    if vars(module).get("_old_forward", vars(module).get("forward", plain)) != plain:
        raise ModelError("patched-forward", f"{path}: its forward was replaced on the instance", "undo that first")


@cache
def _host_class(cls: Any) -> Any:
    """The class of the module's adapted kind.

    It keeps the class's name and its forward's signature, for those who go by them (transformers finds by name
    what hidden states to record, FSDP what to wrap).
    """

    @wraps(cls.forward)
    def forward(self: Host, *args: Any, **kwargs: Any) -> Any:
        return Host.forward(self, *args, **kwargs)

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (Host, cls), {**names, "forward": forward})


def _rebind(module: nn.Module) -> None:
    """accelerate's device hooks keep a bound forward from before the class was swapped; renew it."""
    if "_old_forward" in vars(module):
        cast(Any, module)._old_forward = MethodType(type(module).forward, module)


def _around(call: Call, adapter: AdapterModule, site: Site) -> Call:
    """Wrap one adapter around a call of the module."""
    if adapter.whole_call:
        return _Whole(call, adapter)
    if site.before:
        return _Before(call, adapter, site.rows)
    return _After(call, adapter, site.rows, site.residual)


@dataclass(slots=True)
class _Whole:
    """The adapter gets every argument by name and returns the whole output."""

    call: Call
    adapter: AdapterModule

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        names = _parameters(self.adapter)
        return self.adapter(self.call, **dict(zip(names, args, strict=False)), **kwargs)


@dataclass(slots=True)
class _Before:
    """The adapter transforms the hidden states that come in: for the whole place, or for the rows of a role."""

    call: Call
    adapter: AdapterModule
    rows: Rows | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x, args, kwargs = _take_hidden(self.adapter, args, kwargs)
        out = self.call(self.adapter(_same, x), *args, **kwargs)
        if not self.rows:
            return out
        return _put_rows(self.call(x, *args, **kwargs), _take_rows(out, self.rows), self.rows)


@dataclass(slots=True)
class _After:
    """The adapter transforms the hidden states that go out: all, or the rows of a role; before the residual."""

    call: Call
    adapter: AdapterModule
    rows: Rows | None
    residual: str | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x, args, kwargs = _take_hidden(self.adapter, args, kwargs)
        added = None
        if self.residual:
            added, args, kwargs = _zero(self.adapter, self.residual, args, kwargs)
        whole: list[Any] = []

        def base(x: Tensor) -> Tensor:
            whole[:] = [self.call(x, *args, **kwargs)]
            out: Tensor = whole[0][0] if isinstance(whole[0], tuple) else whole[0]
            return _take_rows(out, self.rows) if self.rows else out

        out: Any = self.adapter(base, x)
        if not whole and (self.rows or self.residual):
            base(x)  # the adapter did without: the rest of the output is still wanted
        if self.rows:
            out = _put_rows(whole[0], out, self.rows)
        if added is not None:
            out = out + added
        return (out, *whole[0][1:]) if whole and isinstance(whole[0], tuple) else out


def _same(x: Tensor) -> Tensor:
    return x


def _parameters(adapter: AdapterModule) -> list[str]:
    """The names of the arguments of the place that an adapter sits at."""
    return _arguments(cast(type, type(adapter.host)))


@cache
def _arguments(cls: Any) -> list[str]:
    """The names of the arguments of a class's forward."""
    return list(inspect.signature(cls.forward).parameters)[1:]


def _take_hidden(
    adapter: AdapterModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The hidden states, which are the first argument however they are passed, and the other arguments."""
    if args:
        return args[0], args[1:], kwargs
    name = _parameters(adapter)[0]
    return kwargs[name], args, {key: value for key, value in kwargs.items() if key != name}


def _zero(
    adapter: AdapterModule, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Take the residual out of the arguments: zero goes in, and the residual is added after the adapter."""
    if name in kwargs:
        return kwargs[name], args, {**kwargs, name: torch.zeros_like(kwargs[name])}
    place = _parameters(adapter).index(name) - 1  # the hidden states are already taken
    return args[place], (*args[:place], torch.zeros_like(args[place]), *args[place + 1 :]), kwargs


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
