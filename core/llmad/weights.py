"""Weights: the weight and the bias of a linear map, whichever way the base keeps them; a quantised one can be read."""

import torch
from torch import Tensor, nn

from llmad.errors import ModelError
from llmad.quantization import owner
from llmad.quantizer import Quantizer
from llmad.site import Site

_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def weight(module: nn.Module, site: Site) -> Tensor:
    """The weight at a site, (out_features, in_features); a view where it can be, a dequantised copy otherwise.

    Raises:
        ModelError: the place is no linear map, or its weight is quantised by something that is not installed.
    """
    if reason := fault(module, site):
        raise ModelError("no-weight", f"{site.label}: {reason}", "choose another method for this place")
    if quantizer := _reader(module):
        return _own(quantizer.dequantize(module), site)
    whole = module.get_parameter("weight")
    return _own(whole.T if _transposed(module) else whole, site)


def bias(module: nn.Module, site: Site) -> Tensor | None:
    """The bias at a site, (out_features,), if the linear map has one."""
    whole = getattr(module, "bias", None)
    return _own(whole, site) if isinstance(whole, Tensor) else None


@torch.no_grad()
def write(module: nn.Module, site: Site, weight: Tensor, bias: Tensor | None) -> None:
    """Put a weight (out_features, in_features) and a bias (out_features,) in the place of a site's own."""
    rows = site.rows.index() if site.rows else slice(None)
    whole = module.get_parameter("weight")
    (whole.T if _transposed(module) else whole)[rows] = weight
    if bias is not None:
        module.get_parameter("bias")[rows] = bias


def fault(module: nn.Module, site: Site) -> str:
    """Why a place has no weight to read; empty where it has one."""
    found = getattr(module, "weight", None)
    if site.linear and _reader(module):
        return ""
    if not site.linear or not isinstance(found, Tensor) or found.dim() != 2:
        return "the place is no linear map"
    if found.dtype not in _PLAIN:
        return "its weight is quantised, and no installed quantizer reads it"
    return ""


def _reader(module: nn.Module) -> type[Quantizer] | None:
    """The quantizer that reads the weight; not asked of a plain one, as torch.compile cannot trace the question."""
    found = getattr(module, "weight", None)
    return None if type(found) is nn.Parameter and found.dtype in _PLAIN else owner(module)


def _transposed(module: nn.Module) -> bool:
    """Whether the weight is kept as (in_features, out_features), as transformers' Conv1D does."""
    return hasattr(module, "nf")


def _own(whole: Tensor, site: Site) -> Tensor:
    return whole[site.rows.index()] if site.rows else whole
