"""Merging: fold an adapter that is linear into the weights, or say why that cannot be."""

import torch
from torch import Tensor, nn

from llmad import placement, weights
from llmad.attachment import Attached, attached, check_detachable, detach, state
from llmad.errors import ModelError
from llmad.module import AdapterModule, mergeable
from llmad.quantization import owner
from llmad.site import Site

_QUANTISED = "its weight is quantised: it can be read, and not written"


def merge(model: nn.Module, name: str = "default") -> nn.Module:
    """Fold an adapter into the base's weights and detach it; the model then computes the same without it.

    Sums are made in float32 (float64 where the weight is) and rounded once to the weight's dtype.

    Raises:
        UsageError: no adapter has that name, or another one acts through it.
        ModelError: the method is not linear, or a weight is shared, quantised or not finite; nothing is changed.
    """
    check_detachable(model, name)
    own = attached(model, name)
    _check_order(model, name, own)
    shared = _shared_storage(model)
    for site, module in own.modules.items():
        _check(model, name, site, module, shared)
    for site, module in own.modules.items():  # all of them before the first change
        _check_finite(name, site, _folded(model.get_submodule(site.path), site, module)[0])
    for site, module in own.modules.items():
        place = model.get_submodule(site.path)
        weights.write(place, site, *_folded(place, site, module))
    return detach(model, name)


def _check_order(model: nn.Module, name: str, own: Attached) -> None:
    """What is folded in acts before everything that stays, so nothing may act before it or beside it at its places."""
    adapters, stages = state(model).adapters, state(model).active
    if state(model).replaced:
        raise ModelError("not-mergeable", "other adapters are active for a while", "leave disabled or per_row first")
    place = next((place for place, stage in enumerate(stages) if name in stage.names), len(stages) - 1)
    paths = {site.path for site in own.modules}
    for other, there in adapters.items():
        for site, module in there.modules.items():
            if other != name and module.reads_weight and site.path in paths:
                raise ModelError(
                    "not-mergeable",
                    f"adapter {other!r} uses the weight of {site.label}, which would change",
                    f"merge or detach {other!r} first",
                )
    for stage in stages[: place + 1]:
        for other in stage.names:
            if other != name and paths & {site.path for site in adapters[other].modules}:
                raise ModelError(
                    "not-mergeable",
                    f"adapter {other!r} acts before {name!r} or beside it at the same places",
                    f"merge {other!r} first, or activate {name!r} alone",
                )


def _check(model: nn.Module, name: str, site: Site, module: AdapterModule, shared: set[int]) -> None:
    place = model.get_submodule(site.path)
    if placement.offloaded(place):
        raise ModelError(
            "not-mergeable",
            f"adapter {name!r} cannot be merged at {site.label}: its weight is offloaded, not in memory",
            "load the base without offloading, such as with device_map=cpu, and merge there",
        )
    if reason := _fault(place, site, module, shared):
        cure = "keep it attached" + (", or use llmad merge --dequantize" if reason == _QUANTISED else "")
        raise ModelError("not-mergeable", f"adapter {name!r} cannot be merged at {site.label}: {reason}", cure)


def _check_finite(name: str, site: Site, weight: Tensor) -> None:
    if not bool(weight.isfinite().all()):
        reason = f"the weight would leave the range of {str(weight.dtype).removeprefix('torch.')}"
        raise ModelError("not-mergeable", f"adapter {name!r} cannot be merged at {site.label}: {reason}", "keep it")


def _fault(place: nn.Module, site: Site, module: AdapterModule, shared: set[int]) -> str:
    """Why a module cannot be folded in; empty where it can."""
    if not mergeable(module):
        return f"{type(module).__name__} is not a linear update of a weight"
    if reason := weights.fault(place, site):
        return reason
    if owner(place):
        return _QUANTISED
    weight = weights.parameter(place, site)
    if weight.device.type == "meta":
        return "its weight is not in memory"
    if weight.data_ptr() in shared:
        return "its weight is tied to another module's"
    if not all(bool(parameter.isfinite().all()) for parameter in module.parameters()):
        return "the adapter holds values that are not finite"
    return ""


@torch.no_grad()
def _folded(place: nn.Module, site: Site, module: AdapterModule) -> tuple[Tensor, Tensor | None]:
    """The new weight and bias of a site, summed widely and rounded once."""
    old_weight, old_bias = weights.weight(place, site), weights.bias(place, site)
    wide = torch.promote_types(old_weight.dtype, torch.float32)
    weight, bias = module.fold(old_weight.to(wide), None if old_bias is None else old_bias.to(wide))
    return weight.to(old_weight.dtype), None if old_bias is None or bias is None else bias.to(old_bias.dtype)


def _shared_storage(model: nn.Module) -> set[int]:
    """Addresses of the weights that more than one module holds."""
    seen: set[int] = set()
    shared: set[int] = set()
    for _, parameter in model.named_parameters(remove_duplicate=False):
        (shared if parameter.data_ptr() in seen else seen).add(parameter.data_ptr())
    return shared
