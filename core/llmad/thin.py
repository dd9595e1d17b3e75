"""Products with a thin matrix, of a few numbers a token, by the layouts that are quick.

    thin(x, weight)            x weight^T           (all, wide), (r, wide) to (all, r)
    widen_(out, y, weight, s)  out += s y weight    (all, wide), (all, r), (r, wide)
    across(y, x)               y^T x                (all, r), (all, wide) to (r, wide)

Libraries are tuned for matrices with no short side; with one, it is the layout that decides. At r = 8 in float32 on a
CPU `x weight^T` takes up to four times as long as the same numbers asked for column by column, and from r = 16 less.
CPUs without instructions for half precision want each short side in its own order, which is worth a copy of what is
thin.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

_NARROW = 16  # numbers; for fewer, columns are quicker
_FEW = 8  # tokens; up to so many, finding the layout takes longer than the product


def thin(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight.T`."""
    if emulated(x):
        return torch.mm(rows(weight), x.T).T
    if len(x) <= _FEW:
        return F.linear(x, weight)
    return torch.mm(x, weight.T) if len(weight) >= _NARROW else torch.mm(weight, x.T).T


def widen_(out: Tensor, y: Tensor, weight: Tensor, scale: float = 1.0) -> Tensor:
    """`out` with `scale * y @ weight` added to it."""
    if emulated(out):
        y, weight = columns(y), rows(weight)
    return out.addmm_(y, weight, alpha=scale)


def across(y: Tensor, x: Tensor) -> Tensor:
    """`y.T @ x`."""
    return torch.mm((rows(y) if emulated(x) else y).T, x)


def columns(matrix: Tensor) -> Tensor:
    """The matrix, column by column in memory."""
    return rows(matrix.T).T


def rows(matrix: Tensor) -> Tensor:
    """The matrix, row by row in memory."""
    return matrix.contiguous()


def emulated(x: Tensor) -> bool:
    """Whether products of this dtype and device may be made of others: half precision on a CPU."""
    return x.dtype in (torch.bfloat16, torch.float16) and x.device.type == "cpu"
