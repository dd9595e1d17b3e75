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
    if not site.stack and (quantizer := _reader(module)):
        return _own(quantizer.dequantize(module), site)
    return _own(_whole(module, site), site)


def bias(module: nn.Module, site: Site) -> Tensor | None:
    """The bias at a site, (out_features,), if the linear map has one; an expert's is added outside of its place."""
    whole = None if site.stack else getattr(module, "bias", None)
    return _own(whole, site) if isinstance(whole, Tensor) else None


@torch.no_grad()
def write(module: nn.Module, site: Site, weight: Tensor, bias: Tensor | None) -> None:
    """Put a weight (out_features, in_features) and a bias (out_features,) in the place of a site's own."""
    rows = site.rows.index() if site.rows else slice(None)
    _whole(module, site)[rows] = weight
    if bias is not None:
        module.get_parameter("bias")[rows] = bias


def parameter(module: nn.Module, site: Site) -> nn.Parameter:
    """The parameter that holds the weight of a site, whatever else it holds."""
    return module.get_parameter(site.stack.parameter if site.stack else "weight")


def fault(module: nn.Module, site: Site) -> str:
    """Why a place has no weight to read; empty where it has one."""
    if site.linear and not site.stack and _reader(module):
        return ""
    found = getattr(module, site.stack.parameter if site.stack else "weight", None)
    if not site.linear or not isinstance(found, Tensor) or found.dim() != (3 if site.stack else 2):
        return "the place is no linear map"
    if found.dtype not in _PLAIN:
        return "its weight is quantised, and no installed quantizer reads it"
    return ""


def _whole(module: nn.Module, site: Site) -> Tensor:
    """The weight with the rows of other roles, (all out_features, in_features), as a view of what is stored."""
    held: Tensor = parameter(module, site)
    if site.stack:
        held = held[site.stack.expert]
    transposed = site.stack.transposed if site.stack else hasattr(module, "nf")  # transformers' Conv1D
    return held.T if transposed else held


def _reader(module: nn.Module) -> type[Quantizer] | None:
    """The quantizer that reads the weight; not asked of a plain one, as torch.compile cannot trace the question."""
    found = getattr(module, "weight", None)
    return None if type(found) is nn.Parameter and found.dtype in _PLAIN else owner(module)


def _own(whole: Tensor, site: Site) -> Tensor:
    return whole[site.rows.index()] if site.rows else whole
