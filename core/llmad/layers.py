"""Layers that keep their weights in one dtype and compute in another, by the products that are quick for narrow maps.

    down    (..., wide) to (..., r)        up    (..., r) to (..., wide)        r is small beside both

A product with one short side is bound by memory, and its speed hangs on how the short side lies there: with the
weight of a widening map as (r, wide) and its input column by column, forward and backward are many times faster on a
CPU than with torch's own layout.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

from llmad.dropped import linear_of_dropped


class Linear(nn.Linear):
    """A linear map that computes in the dtype of its input: the small weight is cast, never the activations."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features), in the dtype of the input."""
        return F.linear(input, *self._as(input))

    def of_dropped(self, input: Tensor, share: float) -> Tensor:
        """The map of an input of which a share is dropped; neither what is left of it nor a mask is kept."""
        if not share or not eager(input):
            plain: Tensor = self(F.dropout(input, share))
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
        wide = base.reshape(-1, self.out_features)
        out = torch.addmm(wide, columns(input), rows(weight.T), alpha=scale).view(base.shape)
        return out if bias is None else out.add_(bias, alpha=scale)

    def _as(self, input: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the dtype of the input."""
        return self.weight.to(input.dtype), None if self.bias is None else self.bias.to(input.dtype)


def columns(input: Tensor) -> Tensor:
    """(..., r) as (all, r), column by column in memory."""
    return rows(input.reshape(-1, input.shape[-1]).T).T


def rows(matrix: Tensor) -> Tensor:
    """The matrix, row by row in memory."""
    return matrix.contiguous()


def eager(input: Tensor) -> bool:
    """Whether operations run one by one, as they are written: a compiler fuses them itself, autocast casts them."""
    return not (torch.compiler.is_compiling() or torch.is_autocast_enabled(input.device.type))
