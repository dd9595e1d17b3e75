"""Merging: fold an adapter that is linear into the weights, or say why that cannot be."""

import torch
from torch import Tensor, nn

from llmad.attachment import Attached, attached, detach, state
from llmad.errors import ModelError
from llmad.module import AdapterModule, mergeable
from llmad.site import Site

_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def merge(model: nn.Module, name: str = "default") -> nn.Module:
    """Fold an adapter into the base's weights and detach it; the model then computes the same without it.

    Sums are made in float32 (float64 where the weight is) and rounded once to the weight's dtype.

    Raises:
        UsageError: no adapter has that name.
        ModelError: the method is not linear, or a weight is shared, quantised or not finite; nothing is changed.
    """
    own = attached(model, name)
    _check_order(model, name, own)
    shared = _shared_storage(model)
    for site, module in own.modules.items():
        _check(model, name, site, module, shared)
    for site, module in own.modules.items():
        _fold(model.get_submodule(site.path), site, module)
    return detach(model, name)


def _check_order(model: nn.Module, name: str, own: Attached) -> None:
    """What is folded in acts before everything that stays, so nothing may act before it at the same place."""
    adapters, active = state(model).adapters, state(model).active
    paths = {site.path for site in own.modules}
    for other in active[: active.index(name)] if name in active else active:
        if paths & {site.path for site in adapters[other].modules}:
            raise ModelError(
                "not-mergeable",
                f"adapter {other!r} acts before {name!r} at the same places",
                f"merge {other!r} first",
            )


def _check(model: nn.Module, name: str, site: Site, module: AdapterModule, shared: set[int]) -> None:
    weight = getattr(model.get_submodule(site.path), "weight", None)
    reason = ""
    if not mergeable(module):
        reason = f"{type(module).__name__} is not a linear update of a weight"
    elif not site.linear or not isinstance(weight, Tensor) or weight.dim() != 2:
        reason = "the place is no linear map"
    elif weight.dtype not in _PLAIN:
        reason = "its weight is quantised"
    elif weight.device.type == "meta":
        reason = "its weight is not in memory"
    elif weight.data_ptr() in shared:
        reason = "its weight is tied to another module's"
    elif not all(bool(parameter.isfinite().all()) for parameter in module.parameters()):
        reason = "the adapter holds values that are not finite"
    if reason:
        raise ModelError(
            "not-mergeable",
            f"adapter {name!r} cannot be merged at {site.label}: {reason}",
            "keep it attached",
        )


@torch.no_grad()
def _fold(host: nn.Module, site: Site, module: AdapterModule) -> None:
    weight = host.weight
    assert isinstance(weight, Tensor)
    transposed = hasattr(host, "nf")  # transformers' Conv1D keeps (in, out)
    wide = torch.promote_types(weight.dtype, torch.float32)
    matrix = (weight.T if transposed else weight).to(wide, copy=True)  # (out_features, in_features)
    update = module.delta().to(matrix)
    rows = site.rows.index() if site.rows else slice(None)
    matrix[rows] += matrix[rows] @ update if site.before else update
    weight.copy_(matrix.T if transposed else matrix)


def _shared_storage(model: nn.Module) -> set[int]:
    """Addresses of the weights that more than one module holds."""
    seen: set[int] = set()
    shared: set[int] = set()
    for _, parameter in model.named_parameters(remove_duplicate=False):
        (shared if parameter.data_ptr() in seen else seen).add(parameter.data_ptr())
    return shared
