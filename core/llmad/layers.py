"""Layers that keep their weights in one dtype and compute in another, by the products that are quick for narrow maps.

down    (..., wide) to (..., r)        up    (..., r) to (..., wide)        r is small beside both
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

from llmad.dropped import linear_of_dropped
from llmad.thin import columns, emulated, rows

Frozen = tuple[Tensor, Tensor | None]  # weight and bias of a linear map that is not trained

_FEW = 64  # tokens; for fewer the copies take longer than they save


class Linear(nn.Linear):
    """A linear map that computes in the dtype of its input: the small weight is cast, never the activations."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features), in the dtype of the input."""
        return F.linear(input, *self._as(input))

    def of_dropped(self, input: Tensor, share: float) -> Tensor:
        """The map of an input of which a share is dropped; neither what is left of it nor a mask is kept."""
        if not share or not eager(input):
            plain: Tensor = self(F.dropout(input, share) if share else input)
            return plain
        weight, bias = self._as(input)
        out = linear_of_dropped(input, weight, share)
        return out if bias is None else out + bias

    def onto(self, base: Tensor, input: Tensor, scale: float | Tensor = 1.0) -> Tensor:
        """`base + scale * self(input)`, without a tensor for the sum's second half.

        Args:
            base: (..., out_features).
            input: (..., in_features), of the same leading sizes.
            scale: a number, or one that is trained.
        """
        if base.dtype != input.dtype or base.shape[:-1] != input.shape[:-1] or not eager(input):
            plain: Tensor = self(input)
            return base + scale * plain
        weight, bias = self._as(input)
        if isinstance(scale, Tensor):
            weight, bias, scale = weight * scale, None if bias is None else bias * scale, 1.0
        wide, narrow, weight = base.reshape(-1, self.out_features), input.reshape(-1, self.in_features), weight.T
        if len(narrow) > _FEW or emulated(base):  # torch's own gradients go by the layouts that it finds
            narrow, weight = columns(narrow), rows(weight)
        out = torch.addmm(wide, narrow, weight, alpha=scale).view(base.shape)
        return out if bias is None else out.add_(bias, alpha=scale)

    def _as(self, input: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the dtype of the input."""
        return self.weight.to(input.dtype), None if self.bias is None else self.bias.to(input.dtype)


def weight_of(layer: Linear) -> Tensor:
    """The layer's weight; asking the layer itself takes ten times as long, at every call of every place."""
    own = layer._parameters.get("weight")
    return layer.weight if own is None else own


def eager(input: Tensor) -> bool:
    """Whether operations run one by one, as they are written: a compiler fuses them itself, autocast casts them."""
    return not (torch.compiler.is_compiling() or torch.is_autocast_enabled(input.device.type))


def frozen_linear(base: Callable[..., Any], x: Tensor) -> Frozen | None:
    """What a place computes with, if it is torch's own linear map, plain and frozen, and meets x eagerly."""
    if not (isinstance(base, MethodType) and base.__func__ is nn.Linear.forward and eager(x)):
        return None
    own: dict[str, Tensor | None] = base.__self__._parameters  # type: ignore[attr-defined]
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None or len(own) != 2 or "bias" not in own:  # a hook may hold others in their place
        return None
    return (weight, bias) if _still(weight, x) and (bias is None or _still(bias, x)) else None


def _still(one: Tensor, x: Tensor) -> bool:
    return type(one) is nn.Parameter and one.dtype == x.dtype and not one.requires_grad
