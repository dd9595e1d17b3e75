"""Stacked: updates for runs of tokens as one update, by the same number of products however many they are.

    middle = (x D^T) * M      out += middle U^T      D (R, in_features), U (out_features, R), M (tokens, R)

D is the A of all updates, one below the other, U their B side by side, and R the sum of their ranks. M has an update's
scale where its tokens meet its columns, and zero elsewhere; so a share of the numbers is made for nothing, which costs
less than asking for each product by itself as long as there are few. What is not finite in one update would go to the
tokens of all, since zero times infinity is no number: where a sum tells so, the caller computes each by itself.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

from llmad.update import Update

_MOST = 2048  # numbers of `middle`; measured with widths of 512 and 1376, ranks of 8 and 16, on one thread


class Stack(NamedTuple):
    """D, U and M of several updates."""

    down: Tensor
    up: Tensor
    mask: Tensor


def stack(x: Tensor, updates: Sequence[Update]) -> Stack | None:
    """The updates of x (tokens, in_features) as one, if that is quicker: on a CPU, for several and few tokens."""
    if len(updates) < 2 or not x.is_cpu or type(x) is not Tensor or x.dtype not in (torch.float32, torch.float64):
        return None
    tokens, ranks = x.shape[0], tuple([update.down.shape[0] for update in updates])  # `len` takes longer
    if tokens * sum(ranks) > _MOST or any(update.drop or update.down.dtype != x.dtype for update in updates):
        return None
    where = tuple([(update.start, update.stop, update.scale) for update in updates])
    down, up = torch.cat([update.down for update in updates]), torch.cat([update.up for update in updates], 1)
    return Stack(down, up, _mask(tokens, ranks, where, x.dtype))


@lru_cache(64)  # all places of a forward pass have the same
def _mask(
    tokens: int, ranks: tuple[int, ...], where: tuple[tuple[int, int | None, float], ...], dtype: torch.dtype
) -> Tensor:
    with torch.inference_mode(False):
        mask = torch.zeros(tokens, sum(ranks), dtype=dtype, device="cpu")
        for (start, stop, scale), rank, end in zip(where, ranks, accumulate(ranks), strict=True):
            mask[start:stop, end - rank : end] = scale
    return mask


def add_(out: Tensor, x: Tensor, own: Stack) -> Tensor:
    """Add the updates to `out`, (tokens, out_features); the middle is returned, (tokens, R)."""
    middle = F.linear(x, own.down).mul_(own.mask)
    out.addmm_(middle, own.up.T)
    return middle


def gradients(gradient: Tensor, x: Tensor, to_x: Tensor | None, middle: Tensor, own: Stack) -> tuple[Tensor, Tensor]:
    """The gradients of D and U; that of x is added to `to_x`, if there is any."""
    narrow = torch.mm(gradient, own.up).mul_(own.mask)
    if to_x is not None:
        to_x.addmm_(narrow, own.down)
    return torch.mm(narrow.T, x), torch.mm(gradient.T, middle)


def finite(x: Tensor) -> bool:
    """Whether the sum of all numbers is one, and so each of them."""
    return isfinite(x.sum().item())
