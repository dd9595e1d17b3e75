"""Attaching: put a spec's modules at their sites, and take them out again; `activation` chooses which act.

`attach` is the only place that changes a model. Everything that can be refused is refused before the first
change, so a failed call leaves the model as it was; `detach` gives the base back bit for bit.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn

from llmad import host, placement
from llmad.composition import Stage, acting, without
from llmad.errors import ModelError, UsageError, nearest
from llmad.match import select
from llmad.memory import enough_memory
from llmad.module import AdapterModule
from llmad.registry import parse_spec
from llmad.site import Site
from llmad.spec import AdapterSpec

_STATE = "_llmad"


@dataclass(frozen=True)
class Attached:
    """An adapter on a model: its spec, one module a site, and the adapters that acted by themselves before it came."""

    spec: AdapterSpec
    modules: dict[Site, AdapterModule]
    took_over: tuple[str, ...] = ()


@dataclass
class State:
    """What a model with adapters remembers.

    `active` is shared with every host; `replaced` says that it is another for a while, as in `disabled`; `trainable`
    holds the base's `requires_grad` flags from before.
    """

    adapters: dict[str, Attached] = field(default_factory=dict)
    active: list[Stage] = field(default_factory=list)
    replaced: bool = False
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
    chosen = select(model, spec)
    check(model, spec, chosen, name)
    return chosen


def check(model: nn.Module, spec: AdapterSpec, chosen: Sequence[Site], name: str) -> None:
    """Refuse a name, or sites, that the model cannot take."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict, name):
        raise UsageError(
            "bad-name",
            f"{name!r} cannot name an adapter",
            "use letters, digits, - and _, and no method's name",
        )
    if name in state(model).adapters:
        raise UsageError("name-taken", f"an adapter {name!r} is already attached", "detach it, or give another name")
    _check_taken_over(model, spec, chosen)
    for path, place in _places(model, chosen).items():
        host.check_mountable(place, path)


def build(model: nn.Module, spec: AdapterSpec, chosen: Sequence[Site]) -> dict[Site, AdapterModule]:
    """Make the modules, each on its host's device; nothing is attached yet.

    Weights are drawn on the CPU wherever the base lives, so that a seed means the same weights everywhere.

    Raises:
        ModelError: the modules cannot be made there, or would be larger than any tensor.
        OutOfMemoryError: they need more memory than there is.
    """
    places = _places(model, chosen)
    devices = {path: placement.device(place) for path, place in places.items()}
    drawn = torch.device("meta" if any(device.type == "meta" for device in devices.values()) else "cpu")
    where = nullcontext() if torch.get_default_device() == drawn else drawn  # torch is slower where one is set
    with where, _of_a_size(spec), enough_memory(f"choose smaller options of {spec.name}"):
        modules = spec.assemble(chosen)
        for site in chosen:
            _place(spec, modules.get(site), site, places[site.path], model, drawn, devices[site.path])
    return modules


@contextmanager
def _of_a_size(spec: AdapterSpec) -> Iterator[None]:
    """Say that an option is too large for any tensor; torch and Python have several errors for it."""
    try:
        yield
    except (OverflowError, RuntimeError, TypeError) as error:
        if "overflow" not in str(error).lower() and not isinstance(error, OverflowError):
            raise
        raise ModelError(
            "too-large", f"{spec.name}: no tensor can be of that size: {' '.join(str(error).split())[:200]}"
        ) from None


def mount(model: nn.Module, spec: AdapterSpec, modules: dict[Site, AdapterModule], name: str) -> nn.Module:
    """Put built modules in their places and freeze the base."""
    own = state(model)
    if not own.adapters:
        for key, parameter in model.named_parameters():
            own.trainable[key] = parameter.requires_grad
            parameter.requires_grad_(False)
        setattr(model, _STATE, own)
    taken = tuple(other for other in spec.takes_over() if other in acting(own.active))
    own.adapters[name] = Attached(spec, modules, taken)
    for other in spec.takes_over():
        own.active[:] = without(own.active, other)
    own.active.append(Stage((name,)))
    places = _places(model, modules)
    for site, module in modules.items():
        host.mount(places[site.path], name, site, module, own.active)
    placement.note_shared(modules.values())
    return model


def detach(model: nn.Module, name: str = "default") -> nn.Module:
    """Take an adapter out; when it was the last, the base is again what it was, `requires_grad` flags included.

    Where it was active, adapters that it had taken over act by themselves again.

    Raises:
        UsageError: no adapter has that name, or another one acts through it.
    """
    check_detachable(model, name)
    own = state(model)
    removed = own.adapters.pop(name)
    again = [Stage((other,)) for other in removed.took_over if name in acting(own.active)]
    own.active[:] = without(own.active, name) + again
    for place in _places(model, removed.modules).values():
        host.unmount(place, name)
    if not own.adapters:
        for key, flag in own.trainable.items():
            placement.set_grad(model, key, flag)
        delattr(model, _STATE)
    return model


def check_detachable(model: nn.Module, name: str) -> None:
    """Refuse, before anything is changed, to take out an adapter that is not there or that another acts through."""
    named(model, name)
    for other, using in state(model).adapters.items():
        if name in using.spec.takes_over() and other != name:
            raise UsageError("in-use", f"adapter {other!r} works with {name!r}", f"detach {other!r} first")


def _check_taken_over(model: nn.Module, spec: AdapterSpec, chosen: Sequence[Site]) -> None:
    """An adapter that acts through another one must do so everywhere."""
    for name in spec.takes_over():
        for site in attached(model, name).modules:
            if site not in chosen:
                reason = f"{spec.name} takes over {name!r}, which also sits at {site.label}"
                raise UsageError("not-covered", reason, "choose the same sites for both")


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
    found = named(model, name)
    for module in found.modules.values():
        placement.settle(module)
    return found


def named(model: nn.Module, name: str) -> Attached:
    """The adapter of that name, its modules as they lie: unlike `attached`, nothing is done to them.

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


def _places(model: nn.Module, chosen: Iterable[Site]) -> dict[str, nn.Module]:
    """The modules at sites by their paths, in the model's order; one walk, which is faster than a search for each."""
    paths = {site.path for site in chosen}
    return {path: place for path, place in model.named_modules(remove_duplicate=False) if path in paths}


def _place(
    spec: AdapterSpec,
    module: AdapterModule | None,
    site: Site,
    host: nn.Module,
    model: nn.Module,
    drawn: torch.device,
    device: torch.device,
) -> None:
    """Tell a module where it sits; past torch's own bookkeeping, so that neither host nor model is a part of it."""
    if not isinstance(module, AdapterModule):
        raise ModelError("bad-plugin", f"{spec.name} built {type(module).__name__}, not an AdapterModule")
    vars(module).update(site=site, host=host, model=model)
    if device != drawn:
        module.to(device)
    module.begin()
    if device != drawn:
        module.to(device)  # again: `begin` may have made parameters
    module.train(host.training)
