"""Low-rank updates of a linear map, with the fewest passes over its activations that torch allows.

    out = base(x) + scale * B A (x * keep) / (1 - share)        A (r, in_features), B (out_features, r)

Where the base is torch's own frozen linear map, one function computes both halves, so that the update is added to the
base's output, and its gradient to the base's gradient, where they lie. It keeps x and r numbers a token; the mask is
drawn again from its seed. Of an x that is a product whose factors are kept anyway, nothing is kept. Several updates,
each for a run of the rows, are computed in the same function, those of few tokens as one (`stacked`). Any other base is
called as it is.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

from llmad import stacked
from llmad.dropped import Drop, draw
from llmad.layers import Frozen, Linear, frozen_linear, weight_of
from llmad.thin import across, emulated, rows, thin, widen_
from llmad.update import Update

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
    frozen = frozen_linear(base, x)
    if frozen is None:
        return up.onto(base(x), down.of_dropped(x, share), scale)
    drop = draw(share) if share else None
    return updated(frozen, x, [Update(0, None, weight_of(down), weight_of(up), scale, drop)])


def updated(frozen: Frozen, x: Tensor, updates: Sequence[Update]) -> Tensor:
    """What a linear map of `frozen_linear` makes of x, with updates of runs of tokens that do not overlap."""
    if not torch.is_grad_enabled():
        return _updated(x, frozen, updates)[0]
    matrices = [matrix for update in updates for matrix in (update.down, update.up)]
    out: Tensor = _apply(x, _factors(x), frozen, updates, *matrices)
    return out


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


def _updated(x: Tensor, frozen: Frozen, updates: Sequence[Update]) -> tuple[Tensor, list[Tensor]]:
    """The output (..., out_features), and the middle of each update, (its tokens, r), or that of their stack."""
    flat = x.reshape(-1, x.shape[-1])
    if own := stacked.stack(flat, updates):
        out = F.linear(x, *frozen)
        middle = stacked.add_(out.view(-1, out.shape[-1]), flat, own)
        if stacked.finite(out):
            return out, [middle]
    out = F.linear(x, *frozen)
    wide, middles = out.view(-1, out.shape[-1]), []
    for update in updates:
        middle = _middle(flat, update)
        widen_(update.of(wide), middle, _as(update.up, x).T, update.scale)
        middles.append(middle)
    return out, middles


def _middle(flat: Tensor, update: Update) -> Tensor:
    own = update.of(flat)
    return thin(update.drop(own) if update.drop else own, _as(update.down, flat))


class _Update(torch.autograd.Function):
    """The frozen map and its updates in one."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        factors: tuple[Tensor, Tensor] | None,
        frozen: Frozen,
        updates: Sequence[Update],
        *matrices: Tensor,
    ) -> Tensor:
        out, middles = _updated(x, frozen, updates)
        ctx.save_for_backward(frozen[0], *matrices, *middles, *(factors or (x,)))
        ctx.runs = [(start, stop, scale, drop) for start, stop, _, _, scale, drop in updates]
        ctx.middles = len(middles)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        count, wants = len(ctx.runs), ctx.needs_input_grad
        weight, *kept = ctx.saved_tensors
        matrices, middles = kept[: 2 * count], kept[2 * count : 2 * count + ctx.middles]
        x = reduce(torch.mul, kept[2 * count + ctx.middles :])
        updates = [
            Update(start, stop, matrices[2 * number], matrices[2 * number + 1], scale, drop)
            for number, (start, stop, scale, drop) in enumerate(ctx.runs)
        ]
        flat, wide = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])

        def before() -> Tensor | None:
            return _product(wide, weight) if wants[0] else None

        found = len(middles) < count and _at_once(flat, wide, before(), middles[0], updates)
        to_x, *own = found or _each(flat, wide, before(), middles, updates, wants[4:])
        asked = [one if wanted else None for one, wanted in zip(own, wants[4:], strict=True)]
        return to_x if to_x is None else to_x.view(x.shape), None, None, None, *asked


def _at_once(
    flat: Tensor, wide: Tensor, to_x: Tensor | None, middle: Tensor, updates: Sequence[Update]
) -> list[Tensor | None] | None:
    """The gradients of the input and of all matrices by those of their stack; None where one is not finite."""
    stack = stacked.stack(flat, updates)
    assert stack is not None
    to_down, to_up = stacked.gradients(wide, flat, to_x, middle, stack)
    if not (stacked.finite(to_down) and stacked.finite(to_up)):
        return None
    ranks = [len(update.down) for update in updates]
    pairs = zip(to_down.split_with_sizes(ranks), to_up.split_with_sizes(ranks, 1), strict=True)
    return [to_x, *(one for pair in pairs for one in pair)]


def _each(
    flat: Tensor,
    wide: Tensor,
    to_x: Tensor | None,
    middles: Sequence[Tensor],
    updates: Sequence[Update],
    wants: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the input and of all matrices, update by update."""
    found = [to_x]
    for number, update in enumerate(updates):
        to_down, to_up = wants[2 * number : 2 * number + 2]
        middle = middles[number] if len(middles) == len(updates) else _middle(flat, update)
        own, out = update.of(flat), update.of(wide)
        narrow = thin(out, _as(update.up, flat).T).mul_(update.scale)  # (tokens, r)
        if to_x is not None:
            _add_(update.of(to_x), narrow, _as(update.down, flat), update.drop)
        own = update.drop(own) if update.drop and to_down else own
        found.append(_as(across(narrow, own), update.down) if to_down else None)
        found.append(_as(across(middle, out).T, update.up).mul_(update.scale) if to_up else None)
    return found


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
