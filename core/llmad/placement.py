"""Placement: on which device a module computes, and its tensors where accelerate's hooks keep them elsewhere.

A model that was loaded with `device_map`, or put on accelerate's `dispatch_model`, `cpu_offload` or `disk_offload`,
carries hooks that take a call's tensors to a device. An offloaded module has its own tensors only during a call; they
are on the meta device between two.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_swap: Callable[[Tensor, Tensor], None] = torch.utils.swap_tensors
_SHARED = "_llmad_shared"  # name of a parameter to the module that holds it too, and its name there


def device(module: nn.Module) -> torch.device:
    """Where a module computes: where hooks take its tensors for the call, or where they are."""
    for part in module.modules():
        for hook in _hooks(part):
            if (there := getattr(hook, "execution_device", None)) is not None:
                return torch.device(there)
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def devices(model: nn.Module) -> str:
    """Where the parts of a model are, in words."""
    parts = getattr(model, "hf_device_map", None) or {"": device(model)}
    named = (str(torch.device(part) if isinstance(part, int) else part) for part in parts.values())
    return "+".join(dict.fromkeys(named))


def offloaded(module: nn.Module) -> bool:
    """Whether the tensors of a module, or of a part of it, are there only during a call."""
    if "_hf_hook" in vars(module) and any(getattr(hook, "offload", False) for hook in _hooks(module)):
        return True
    return any(offloaded(part) for part in module._modules.values() if part is not None)  # faster than `children()`


@contextmanager
def in_memory(module: nn.Module) -> Iterator[None]:
    """Within the block a module's own tensors are there, as they are during a call."""
    if not any(tensor.is_meta for tensor in module.parameters(recurse=False)):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module):
        yield


def stored(model: nn.Module, name: str) -> Tensor:
    """A parameter of a model, wherever it is kept between calls."""
    path = name.split(".")
    for cut in range(len(path) - 1, -1, -1):
        own = ".".join(path[cut:])
        for hook in _hooks(model.get_submodule(".".join(path[:cut]))):
            if getattr(hook, "offload", False) and own in hook.weights_map:
                found: Tensor = hook.weights_map[own]
                return found
    return model.get_parameter(name)


def set_grad(model: nn.Module, name: str, flag: bool) -> None:
    """Set a parameter's `requires_grad`; what was offloaded in inference mode must be made anew for that."""
    own = model.get_parameter(name)
    if flag and own.is_inference():
        own = nn.Parameter(torch.empty_like(own))
        path, _, last = name.rpartition(".")
        model.get_submodule(path).register_parameter(last, own)
    own.requires_grad_(flag)


def note_shared(modules: Iterable[nn.Module]) -> None:
    """Remember which parameters several modules hold, since offloading makes a parameter of its own for each."""
    first: dict[int, tuple[nn.Module, str]] = {}
    for module in modules:
        holders = {name: first.setdefault(id(own), (module, name)) for name, own in _parameters(module)}
        if shared := {name: holder for name, holder in holders.items() if holder[0] is not module}:
            vars(module)[_SHARED] = shared


def settle(module: nn.Module) -> None:
    """Undo the offloading of a trained module, if there is any; its parameters stay the objects that they are.

    A parameter that is made anew for every call would take its gradient with it, and never be trained.
    """
    if not offloaded(module):
        return
    from accelerate.hooks import remove_hook_from_module

    where = device(module)
    kept = [(part, dict(part.named_parameters(recurse=False))) for part in module.modules()]
    remove_hook_from_module(module, recurse=True)
    for part, parameters in kept:
        for name, own in parameters.items():
            found = part.get_parameter(name)
            if own.is_meta and not found.is_meta:
                _swap(own, nn.Parameter(found.detach().to(where), found.requires_grad))
            part.register_parameter(name, own)
    for name, (holder, theirs) in vars(module).get(_SHARED, {}).items():
        settle(holder)
        part, _, own_name = name.rpartition(".")
        module.get_submodule(part).register_parameter(own_name, holder.get_parameter(theirs))


def _parameters(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Parameter]]:
    """What `named_parameters` gives, in a fifth of the time for a module of few parts."""
    for name, own in module._parameters.items():
        if own is not None:
            yield prefix + name, own
    for name, part in module._modules.items():
        if part is not None:
            yield from _parameters(part, f"{prefix}{name}.")


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    """accelerate's hooks at a module; several may be chained in one."""
    hook = getattr(module, "_hf_hook", None)
    return () if hook is None else tuple(getattr(hook, "hooks", (hook,)))
