"""Low-rank updates of a linear map, with the fewest passes over its activations that torch allows.

    out = base(x) + scale * B A (x * keep) / (1 - share)        A (r, in_features), B (out_features, r)

Where the base is torch's own frozen linear map, one function computes both halves, so that the update is added to the
base's output, and its gradient to the base's gradient, where they lie. It keeps x and r numbers a token; the mask is
drawn again from its seed. Of an x that is a product whose factors are kept anyway, nothing is kept. Several updates,
each for a run of the rows, are computed in the same function. Any other base is called as it is.
"""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

from llmad.dropped import Drop, draw
from llmad.layers import Linear, eager
from llmad.thin import across, emulated, rows, thin, widen_

Base = Callable[[Tensor], Tensor]


class Update(NamedTuple):
    """An update of a run of tokens: from `start` to before `stop`, counted through all leading sizes of the input."""

    start: int
    stop: int | None
    down: Tensor
    up: Tensor
    scale: float
    drop: Drop | None


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
    linear = frozen_linear(base, x)
    if linear is None:
        return up.onto(base(x), down.of_dropped(x, share), scale)
    return updated(linear, x, [Update(0, None, down.weight, up.weight, scale, draw(share) if share else None)])


def updated(linear: nn.Linear, x: Tensor, updates: Sequence[Update]) -> Tensor:
    """What a linear map of `frozen_linear` makes of x, with updates of runs of tokens that do not overlap."""
    if not torch.is_grad_enabled():
        return _updated(x, linear, updates)[0]
    matrices = [matrix for update in updates for matrix in (update.down, update.up)]
    out: Tensor = _apply(x, _factors(x), linear, updates, *matrices)
    return out


def frozen_linear(base: Base, x: Tensor) -> nn.Linear | None:
    """The module whose own forward the base is, if it is torch's linear map, plain and frozen, and meets x eagerly."""
    if not (isinstance(base, MethodType) and base.__func__ is nn.Linear.forward and eager(x)):
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


def _updated(x: Tensor, linear: nn.Linear, updates: Sequence[Update]) -> tuple[Tensor, list[Tensor]]:
    """The output (..., out_features), and the middle of each update, (its tokens, r)."""
    flat = x.reshape(-1, x.shape[-1])
    out = F.linear(x, linear.weight, linear.bias)
    wide, middles = out.view(-1, out.shape[-1]), []
    for start, stop, down, up, scale, drop in updates:
        own = _run(flat, start, stop)
        middle = thin(drop(own) if drop else own, _as(down, x))
        widen_(_run(wide, start, stop), middle, _as(up, x).T, scale)
        middles.append(middle)
    return out, middles


class _Update(torch.autograd.Function):
    """The frozen map and its updates in one."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        factors: tuple[Tensor, Tensor] | None,
        linear: nn.Linear,
        updates: Sequence[Update],
        *matrices: Tensor,
    ) -> Tensor:
        out, middles = _updated(x, linear, updates)
        ctx.save_for_backward(linear.weight, *(factors or (x,)), *matrices, *middles)
        ctx.runs = [(start, stop, scale, drop) for start, stop, _, _, scale, drop in updates]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        count, wants = len(ctx.runs), ctx.needs_input_grad
        weight, *kept = ctx.saved_tensors
        kept, matrices, middles = kept[: -3 * count], kept[-3 * count : -count], kept[-count:]
        x = kept[0] * kept[1] if len(kept) == 2 else kept[0]
        flat, wide = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        to_x = _product(wide, weight) if wants[0] else None
        found: list[Tensor | None] = []
        for number, (start, stop, scale, drop) in enumerate(ctx.runs):
            down, up, middle = matrices[2 * number], matrices[2 * number + 1], middles[number]
            own, out = _run(flat, start, stop), _run(wide, start, stop)
            narrow = thin(out, _as(up, x).T).mul_(scale)  # (tokens, r)
            if to_x is not None:
                _add_(_run(to_x, start, stop), narrow, _as(down, x), drop)
            to_down, to_up = wants[4 + 2 * number : 6 + 2 * number]
            found.append(_as(across(narrow, drop(own) if drop else own), down) if to_down else None)
            found.append(_as(across(middle, out).T, up).mul_(scale) if to_up else None)
        return to_x if to_x is None else to_x.view(x.shape), None, None, None, *found


def _run(flat: Tensor, start: int, stop: int | None) -> Tensor:
    return flat if stop is None else flat[start:stop]


def _as(one: Tensor, other: Tensor) -> Tensor:
    """In the dtype of another; `to` takes longer to find that there is nothing to do."""
    return one if one.dtype == other.dtype else one.to(other.dtype)


def _add_(to_x: Tensor, narrow: Tensor, down: Tensor, drop: Drop | None) -> None:
    """Add an update's part of the gradient of its input."""
    if drop is None:
        widen_(to_x, narrow, down)
    else:
        to_x.add_(drop(narrow @ down))


def _product(wide: Tensor, weight: Tensor) -> Tensor:
    """`wide @ weight`; CPUs without instructions for half precision are ten times faster with the weight turned."""
    return F.linear(wide, rows(weight.T)) if emulated(wide) else wide @ weight


_apply: Callable[..., Any] = _Update.apply
