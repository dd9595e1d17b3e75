"""Dropout that keeps a number for the backward pass in place of a mask.

    y = x * keep / (1 - share)        keep is drawn anew, from the same seed, when the gradients are made

The seed comes from torch's global generator on the CPU. Masks are drawn 16 bits an element, so the share is met to
1 in 130,000; they depend on the seed and the shape alone, not on the number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

_LOWEST, _VALUES = -(2**15), 2**16  # of 16 bits


@dataclass(frozen=True, slots=True)
class Drop:
    """One drawing of a dropout; the same for the same shape, as often as it is called."""

    share: float
    seed: int

    def __call__(self, x: Tensor) -> Tensor:
        """`x` without the dropped elements, the others scaled up; its own adjoint."""
        return torch.where(self.keep(x), x * (1 / (1 - self.share)), 0.0)

    def keep(self, x: Tensor) -> Tensor:
        """Which elements are kept, of the shape of `x`."""
        generator = torch.Generator(x.device).manual_seed(self.seed)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        bits = bits.random_(-(2**63), None, generator=generator).view(torch.int16)
        return (bits[: x.numel()] >= _LOWEST + round(self.share * _VALUES)).view(x.shape)


def draw(share: float) -> Drop:
    """A new drawing, from torch's global generator."""
    return Drop(share, int(torch.randint(2**63 - 1, (), device="cpu")))


def linear_of_dropped(x: Tensor, weight: Tensor, share: float) -> Tensor:
    """The product with `weight` (out_features, in_features) of `x` (..., in_features), of which a share is dropped."""
    out: Tensor = _apply(x, weight, draw(share))
    return out


class _Product(torch.autograd.Function):
    """Keeps x and the weight; neither the mask nor what it leaves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, drop: Drop) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.drop = drop
        return F.linear(drop(x), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        narrow = gradient.reshape(-1, len(weight))
        to_x = ctx.drop((narrow @ weight).view(x.shape)) if ctx.needs_input_grad[0] else None
        to_weight = narrow.T @ ctx.drop(x).reshape(-1, x.shape[-1]) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, None


_apply: Callable[..., Any] = _Product.apply
