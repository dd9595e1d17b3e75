"""The host: the module at a site, which calls its adapters around its own forward.

A module becomes a host by having its class swapped for a subclass with an `adapters` ModuleDict (as PyTorch's
FSDP2 does); nothing else about it changes, so the model stays the same object, the base keeps its state-dict
keys, and quantised linears keep their own forward. Swapping the class back gives the plain module again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial, reduce, wraps
from types import MethodType
from typing import Any, cast

import torch
from torch import nn

from llmad import placement
from llmad.around import Acting, Call, around
from llmad.composition import Stage
from llmad.errors import ModelError
from llmad.experts import Wraps, routed
from llmad.module import AdapterModule
from llmad.site import Site, Stack
from llmad.turns import around_all, turns

_SLOTS = "_llmad_sites"  # name and slot of each adapter here to its site
_ACTIVE = "_llmad_active"  # the stages of active adapters, innermost first; one list for the whole model
_CHAIN = "_llmad_chain"  # what a call goes through, made for the stages that were active last


class Host:
    """What an adapted module's class gains; it stands in front of the module's own class."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward with the active adapters around it, the first of them innermost."""
        own = self.__dict__
        chain: _Chain | None = own[_CHAIN]
        if chain is None or chain.stages != own[_ACTIVE] or chain.outdated or torch.compiler.is_compiling():
            chain = _chain(cast(nn.Module, self), super().forward)  # type: ignore[misc]  # of the module's own class
            own[_CHAIN] = chain
        return chain.call(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class _Chain:
    """A call of a host with the adapters around it, the stages that it was made for, and the adapters' parts."""

    stages: list[Stage]
    parts: list[nn.Module]
    call: Call

    @property
    def outdated(self) -> bool:
        """Whether an adapter was offloaded with the base since."""
        return any("_hf_hook" in part.__dict__ for part in self.parts)


def _chain(module: nn.Module, call: Call) -> _Chain:
    every = list(acting_here(module))
    if experts := [acting for acting in every if acting.site.stack]:
        call = routed(module, call, _by_expert(experts))
    for group in turns(acting for acting in every if not acting.site.stack):
        call = around_all(call, group)
    parts = [part for acting in every for adapter in acting.adapters for part in adapter.modules()]
    return _Chain(list(getattr(module, _ACTIVE)), parts, call)


def _by_expert(every: list[Acting]) -> Wraps:
    """What is around each expert's matrix, the first innermost."""
    there: dict[tuple[str, int], list[Acting]] = {}
    for acting in every:
        stack = cast(Stack, acting.site.stack)
        there.setdefault((stack.parameter, stack.expert), []).append(acting)
    return {place: partial(_nested, own) for place, own in there.items()}


def _nested(every: list[Acting], call: Call) -> Call:
    return reduce(around, every, call)


def acting_here(module: nn.Module) -> Iterator[Acting]:
    """What acts at a host, innermost first."""
    adapters, places = _held(module._modules["adapters"]), getattr(module, _SLOTS)
    for stage in getattr(module, _ACTIVE):
        here = {name: _held(adapters[name]) for name in stage.names if name in adapters}
        for slot in dict.fromkeys(slot for own in here.values() for slot in own):
            names = [name for name, own in here.items() if slot in own]
            modules = [cast(AdapterModule, here[name][slot]) for name in names]
            for one in modules:
                placement.settle(one)  # offloaded with the base after it was attached
            yield Acting(modules, places[names[0], slot], stage)


def _held(modules: nn.Module | None) -> dict[str, nn.Module | None]:
    """The modules of a ModuleDict; asking it itself takes several times as long, at every call of every place."""
    return cast(nn.Module, modules)._modules


def mount(module: nn.Module, name: str, site: Site, adapter: AdapterModule, active: list[Stage]) -> None:
    """Put an adapter at a module, which becomes a host if it is none yet."""
    if not isinstance(module, Host):
        module.__class__ = _host_class(cast(type, type(module)))
        module.adapters = nn.ModuleDict()
        vars(module).update({_SLOTS: {}, _ACTIVE: active})
        _rebind(module)
    adapters = cast(nn.ModuleDict, module.adapters)
    if name not in adapters:
        adapters[name] = nn.ModuleDict()
    cast(nn.ModuleDict, adapters[name])[site.slot] = adapter
    getattr(module, _SLOTS)[name, site.slot] = site
    vars(module)[_CHAIN] = None


def unmount(module: nn.Module, name: str) -> None:
    """Take an adapter out again; a module that holds no other is what it was before."""
    adapters, places = cast(nn.ModuleDict, module.adapters), getattr(module, _SLOTS)
    del adapters[name]
    for key in [key for key in places if key[0] == name]:
        del places[key]
    vars(module)[_CHAIN] = None
    if not adapters:
        del module.adapters
        delattr(module, _SLOTS)
        delattr(module, _ACTIVE)
        delattr(module, _CHAIN)
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
