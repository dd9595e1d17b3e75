"""Attaching: put a spec's modules at their sites, take them out again, and choose which are active.

`attach` is the only place that changes a model. Everything that can be refused is refused before the first
change, so a failed call leaves the model as it was; `detach` gives the base back bit for bit.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn

from llmad import host
from llmad.errors import ModelError, UsageError, nearest
from llmad.match import select
from llmad.module import AdapterModule
from llmad.registry import parse_spec
from llmad.site import Site
from llmad.spec import AdapterSpec

_STATE = "_llmad"


@dataclass(frozen=True)
class Attached:
    """An adapter on a model: its spec and one module a site."""

    spec: AdapterSpec
    modules: dict[Site, AdapterModule]


@dataclass
class State:
    """What a model with adapters remembers.

    `active` is shared with every host; `trainable` holds the base's `requires_grad` flags from before.
    """

    adapters: dict[str, Attached] = field(default_factory=dict)
    active: list[str] = field(default_factory=list)
    trainable: dict[str, bool] = field(default_factory=dict)


def attach(model: nn.Module, spec: str | AdapterSpec, name: str = "default") -> nn.Module:
    """Attach an adapter, freeze the base, and make the adapter active after those that already are.

    Args:
        model: a transformers causal language model; it stays the same object and keeps its state-dict keys.
        spec: a spec, or its text such as `lora[r=16,sites=attn.q+attn.v,layers=8:]`.
        name: the adapter's name on this model.

    Returns:
        The model.

    Raises:
        UsageError: the spec, a selector or the name is wrong.
        ModelError: the model cannot take the adapter.
    """
    spec = parse_spec(spec)
    chosen = plan(model, spec, name)
    return mount(model, spec, build(model, spec, chosen), name)


def plan(model: nn.Module, spec: AdapterSpec, name: str) -> list[Site]:
    """Every check, no change: the sites where `attach` would put the adapter."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict, name):
        raise UsageError(
            "bad-name",
            f"{name!r} cannot name an adapter",
            "use letters, digits, - and _, and no method's name",
        )
    if name in state(model).adapters:
        raise UsageError("name-taken", f"an adapter {name!r} is already attached", "detach it, or give another name")
    chosen = select(model, spec)
    for site in chosen:
        host.check_mountable(model.get_submodule(site.path), site.path)
    return chosen


def build(model: nn.Module, spec: AdapterSpec, chosen: Sequence[Site]) -> dict[Site, AdapterModule]:
    """Make the modules, each on its host's device; nothing is attached yet."""
    return {site: _build(spec, site, model.get_submodule(site.path)) for site in chosen}


def mount(model: nn.Module, spec: AdapterSpec, modules: dict[Site, AdapterModule], name: str) -> nn.Module:
    """Put built modules in their places and freeze the base."""
    own = state(model)
    if not own.adapters:
        own.trainable = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
        model.requires_grad_(False)
        setattr(model, _STATE, own)
    own.adapters[name] = Attached(spec, modules)
    own.active.append(name)
    for site, module in modules.items():
        host.mount(model.get_submodule(site.path), name, site, module, own.active)
    return model


def detach(model: nn.Module, name: str = "default") -> nn.Module:
    """Take an adapter out; when it was the last, the base is again what it was, `requires_grad` flags included.

    Raises:
        UsageError: no adapter has that name.
    """
    attached(model, name)
    own = state(model)
    removed = own.adapters.pop(name)
    if name in own.active:
        own.active.remove(name)
    for path in {site.path for site in removed.modules}:
        host.unmount(model.get_submodule(path), name)
    if not own.adapters:
        for key, flag in own.trainable.items():
            model.get_parameter(key).requires_grad_(flag)
        delattr(model, _STATE)
    return model


def activate(model: nn.Module, *names: str) -> nn.Module:
    """Make exactly these adapters active, composed in this order: the first is nearest to the base.

    Raises:
        UsageError: no adapter has one of the names, or a name stands twice.
    """
    for name in names:
        attached(model, name)
    if len(set(names)) < len(names):
        raise UsageError("name-twice", f"an adapter stands twice in {', '.join(names)}")
    state(model).active[:] = names
    return model


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block the model is its base."""
    active = state(model).active
    before = list(active)
    active.clear()
    try:
        yield model
    finally:
        active[:] = [name for name in dict.fromkeys((*before, *active)) if name in state(model).adapters]


def parameters(model: nn.Module, name: str = "default") -> Iterator[tuple[str, nn.Parameter]]:
    """The adapter's parameters with their names, each once.

    Raises:
        UsageError: no adapter has that name.
    """
    seen: set[int] = set()
    for site, module in attached(model, name).modules.items():
        for key, parameter in module.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{site.label}:{key}", parameter


def attached(model: nn.Module, name: str) -> Attached:
    """The adapter of that name.

    Raises:
        UsageError: there is none.
    """
    adapters = state(model).adapters
    if name not in adapters:
        raise UsageError("not-attached", f"no adapter {name!r} is attached", nearest(name, list(adapters)))
    return adapters[name]


def state(model: nn.Module) -> State:
    """What the model remembers; an empty state where it has no adapter."""
    return cast(State, getattr(model, _STATE, None) or State())


def _build(spec: AdapterSpec, site: Site, module: nn.Module) -> AdapterModule:
    device = _device(module)
    # Drawn on the CPU wherever the base lives, so that a seed means the same weights everywhere.
    with torch.device("meta" if device.type == "meta" else "cpu"):
        adapter = spec.build(site)
    if not isinstance(adapter, AdapterModule):
        raise ModelError("bad-plugin", f"{spec.name} built {type(adapter).__name__}, not an AdapterModule")
    vars(adapter)["host"] = module  # past nn.Module's own bookkeeping: the host is no part of the adapter
    adapter.to(device)
    adapter.begin()
    return adapter.train(module.training)


def _device(module: nn.Module) -> torch.device:
    """Where a module computes: where accelerate's hooks take its tensors for the call, or where they are."""
    hooks = (getattr(part, "_hf_hook", None) for part in module.modules())
    taken = (getattr(hook, "execution_device", None) for hook in hooks)
    there = (tensor.device for tensor in (*module.parameters(), *module.buffers()))
    return torch.device(next((device for device in (*taken, *there) if device is not None), "cpu"))
