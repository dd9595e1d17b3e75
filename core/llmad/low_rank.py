"""A low-rank update of a linear map, with the fewest passes over its activations that torch allows.

    out = base(x) + scale * B A (x * keep) / (1 - share)        A (r, in_features), B (out_features, r)

Where the base is torch's own frozen linear map, one function computes both halves, so that the update is added to the
base's output, and its gradient to the base's gradient, where they lie. It keeps x and r numbers a token; the mask is
drawn again from its seed. Of an x that is a product whose factors are kept anyway, nothing is kept. Any other base
is called as it is.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

from llmad.dropped import Drop, draw
from llmad.layers import Linear, columns, eager, rows

Base = Callable[[Tensor], Tensor]


def low_rank(base: Base, x: Tensor, down: Linear, up: Linear, scale: float, share: float) -> Tensor:
    """`base(x) + scale * up(down(dropout(x, share)))`, (..., in_features) to (..., out_features).

    Args:
        base: the place.
        x: its input.
        down: to r dimensions, without a bias.
        up: from there, without a bias.
        scale: of the update.
        share: of the update's input that is dropped.
    """
    linear = _frozen_linear(base, x) if eager(x) else None
    if linear is None:
        return up.onto(base(x), down.of_dropped(x, share), scale)
    drop = draw(share) if share else None
    if not torch.is_grad_enabled():
        return _updated(x, linear, down.weight, up.weight, scale, drop)[0]
    out: Tensor = _apply(x, _factors(x), linear, down.weight, up.weight, scale, drop)
    return out


def _frozen_linear(base: Base, x: Tensor) -> nn.Linear | None:
    """The module whose own forward the base is, if it is torch's linear map, plain and frozen."""
    if not (isinstance(base, MethodType) and base.__func__ is nn.Linear.forward):
        return None
    linear: nn.Linear = base.__self__  # type: ignore[assignment]
    own = [one for one in linear._parameters.values() if one is not None]  # a hook may hold others in their place
    plain = all(type(one) is nn.Parameter and one.dtype == x.dtype and not one.requires_grad for one in own)
    return linear if plain and len(own) == 1 + (linear.bias is not None) else None


def _factors(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Two tensors that autograd keeps anyway and whose product is `x`, such as act(gate) and up in an MLP."""
    node: Any = x.grad_fn
    if node is None or node.name() != "MulBackward0":
        return None
    one, other = (_kept(node, place, name, x) for place, name in enumerate(("_raw_saved_self", "_raw_saved_other")))
    return None if one is None or other is None else (one, other)


def _kept(node: Any, place: int, name: str, x: Tensor) -> Tensor | None:
    """A factor of the product `x` as autograd keeps it; None for what a hook put there, as checkpointing does."""
    factor = getattr(getattr(node, name, None), "data", None)
    if not isinstance(factor, Tensor) or type(factor) not in (Tensor, FakeTensor):
        return None
    if (factor.shape, factor.dtype) != (x.shape, x.dtype):
        return None
    return factor if factor.grad_fn is node.next_functions[place][0] else None


def _updated(
    x: Tensor, linear: nn.Linear, down: Tensor, up: Tensor, scale: float, drop: Drop | None
) -> tuple[Tensor, Tensor]:
    """The output (..., out_features), and the middle of the update, (all, r)."""
    middle = F.linear(drop(x) if drop else x, down.to(x.dtype)).flatten(0, -2)
    out = F.linear(x, linear.weight, linear.bias)
    out.view(-1, len(up)).addmm_(columns(middle), rows(up.to(x.dtype).T), alpha=scale)
    return out, middle


class _Update(torch.autograd.Function):
    """The frozen map and its update in one."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        factors: tuple[Tensor, Tensor] | None,
        linear: nn.Linear,
        down: Tensor,
        up: Tensor,
        scale: float,
        drop: Drop | None,
    ) -> Tensor:
        out, middle = _updated(x, linear, down, up, scale, drop)
        ctx.save_for_backward(linear.weight, down, up, middle, *(factors or (x,)))
        ctx.scale, ctx.drop = scale, drop
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        weight, down, up, middle, *kept = ctx.saved_tensors
        x = kept[0] * kept[1] if len(kept) == 2 else kept[0]
        wide, wants = gradient.reshape(-1, len(up)), ctx.needs_input_grad
        narrow = (rows(up.to(x.dtype).T) @ wide.T).mul_(ctx.scale).T  # (all, r)
        to_x = to_down = to_up = None
        if wants[0]:
            to_x = _to_input(wide, weight, narrow, down.to(x.dtype), ctx.drop, x)
        if wants[3]:
            dropped = ctx.drop(x) if ctx.drop else x
            to_down = (rows(narrow).T @ dropped.reshape(-1, x.shape[-1])).to(down.dtype)
        if wants[4]:
            to_up = (middle.T @ wide).T.to(up.dtype).mul_(ctx.scale)
        return to_x, None, None, to_down, to_up, None, None


def _to_input(wide: Tensor, weight: Tensor, narrow: Tensor, down: Tensor, drop: Drop | None, x: Tensor) -> Tensor:
    """The gradient of x: that of the map, and that of the update added to it."""
    to_x = _product(wide, weight)
    if drop is None:
        return to_x.addmm_(narrow, down).view(x.shape)
    return to_x.view(x.shape).add_(drop((narrow @ down).view(x.shape)))


def _product(wide: Tensor, weight: Tensor) -> Tensor:
    """`wide @ weight`; CPUs without instructions for half precision are ten times faster with the weight turned."""
    slow = wide.device.type == "cpu" and wide.dtype in (torch.bfloat16, torch.float16)
    return F.linear(wide, rows(weight.T)) if slow else wide @ weight


_apply: Callable[..., Any] = _Update.apply
