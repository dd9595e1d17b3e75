"""Cross entropy behind a frozen head, chunk by chunk: no more than a chunk of logits exists at a time.

For each chunk the logits z (tokens, vocabulary) are made, turned in place into the gradient with respect to
themselves, softmax(z) - onehot(target), and multiplied by the head's weight into the gradient with respect to the
hidden states. So the backward pass has nothing left to do but to multiply by a number. (Liger Kernel, Hsu et al., 2024,
arXiv 2410.10989, section 3.2, fuses the loss in this way.)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

from llmad.head import Behind

CHUNK = {"cpu": 2**26}  # bytes of a chunk's logits in float32: many tokens to read the weight for, little memory
_ELSEWHERE = 2**28  # the same on an accelerator, which needs more work at once
_BLOCK = 2**25  # bytes of the weight in float32, where a processor has no products of 16 bits
_PARTS = 2  # of a chunk, which are turned one after the other: a tanh wants as much room again beside them
_Call = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Linear:
    """A head that is `hidden @ weight.T + bias`: weight (vocabulary, width), bias (vocabulary,) or None."""

    weight: Tensor
    bias: Tensor | None
    _room: Tensor | None = field(default=None, init=False)  # memory that is asked for once is there at once later

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Write the logits (tokens, vocabulary), in float32."""
        for rows, weight in self._blocks():
            if weight.dtype == out.dtype:
                torch.mm(hidden.to(out.dtype), weight.T, out=out[:, rows])
            else:
                out[:, rows] = hidden @ weight.T
        if self.bias is not None:
            out += self.bias

    def back(self, grad: Tensor) -> Tensor:
        """The gradient with respect to the hidden states (tokens, width), of that with respect to the logits."""
        total = grad.new_zeros(len(grad), self.weight.shape[1])
        for rows, weight in self._blocks():
            if weight.dtype == grad.dtype:
                total.addmm_(grad[:, rows], weight)
            else:
                total += grad[:, rows].to(weight.dtype) @ weight
        return total

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The weight's rows in the dtype to multiply in: its own, or float32 a block at a time."""
        count, width = self.weight.shape
        if self.weight.dtype == torch.float32 or multiplies(self.weight):
            yield slice(0, count), self.weight
            return
        step = max(1, _BLOCK // (4 * width))
        if self._room is None:
            self._room = self.weight.new_empty(min(step, count), width, dtype=torch.float32)
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield rows, self._room[: rows.stop - start].copy_(self.weight[rows])


def multiplies(weight: Tensor) -> bool:
    """Whether its device is fast at matrix products in the dtype of a weight of 16 bits."""
    if weight.device.type != "cpu":
        return True
    wanted = {torch.bfloat16: ("avx512_bf16", "amx_bf16"), torch.float16: ("avx512_fp16", "amx_fp16")}
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in wanted[weight.dtype])


def chunked_losses(hidden: Tensor, targets: Tensor, head: Linear | _Call, behind: Behind) -> Tensor:
    """Cross entropy of each token in float32, (tokens,) in nats.

    Args:
        hidden: (tokens, width), what comes to the head; its gradient is made here and now if it wants one.
        targets: (tokens,) of long.
        head: the frozen head: a linear map, or a call from (1, tokens, width) to (1, tokens, vocabulary).
        behind: what the model makes of the head's logits.
    """
    losses: Tensor = _Loss.apply(hidden, targets, head, behind)  # type: ignore[no-untyped-call]  # torch's own
    return losses


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Linear | _Call, behind: Behind) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        one = _linear if isinstance(head, Linear) else _called
        grad = torch.empty_like(hidden) if wanted else None
        losses = hidden.new_empty(len(targets), dtype=torch.float32)
        one(hidden, targets, head, behind, losses, grad)
        ctx.save_for_backward(grad)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * scale[:, None]).to(grad.dtype), None, None, None


def _linear(hidden: Tensor, targets: Tensor, head: Any, behind: Behind, losses: Tensor, grad: Tensor | None) -> None:
    """Fill in the tokens' losses, and the gradient where one is wanted, of a linear head."""
    cut = slice(0, behind.width)
    head = Linear(head.weight[cut], None if head.bias is None else head.bias[cut])
    every = list(_chunks(hidden, behind.width))
    room = hidden.new_empty(every[0].stop, behind.width, dtype=torch.float32)
    for chunk in every:
        logits = room[: chunk.stop - chunk.start]
        head.logits(hidden[chunk], logits)
        step = -(-len(logits) // _PARTS)
        parts = (torch.split(each, step) for each in (logits, targets[chunk], losses[chunk]))
        for part, wanted, own in zip(*parts, strict=True):
            own.copy_(_turn(part, wanted, behind))
        if grad is not None:
            grad[chunk] = head.back(logits)


def _turn(logits: Tensor, targets: Tensor, behind: Behind) -> Tensor:
    """Turn the head's logits into the gradient with respect to them, in place; returns the tokens' losses (tokens,)."""
    if behind.limit is None:
        if behind.scale != 1:
            logits *= behind.scale
        losses = _softmax_less_target(logits, targets)
    else:
        logits.mul_(behind.scale / behind.limit).tanh_()
        share = logits * behind.limit
        losses = _softmax_less_target(share, targets)
        logits.square_().neg_().add_(1).mul_(share)  # the derivative of tanh is 1 - tanh²
    if behind.scale != 1:
        logits *= behind.scale
    return losses


def _softmax_less_target(logits: Tensor, targets: Tensor) -> Tensor:
    """Turn logits into softmax - onehot, in place; returns the cross entropy (tokens,)."""
    own, most = logits.gather(1, targets[:, None]), logits.amax(1, keepdim=True)
    total = logits.sub_(most).exp_().sum(1, keepdim=True)
    logits /= total
    logits.scatter_add_(1, targets[:, None], logits.new_full((len(targets), 1), -1.0))
    return (most - own + total.log())[:, 0]


def _called(hidden: Tensor, targets: Tensor, head: Any, behind: Behind, losses: Tensor, grad: Tensor | None) -> None:
    """The same for a head of any other kind, by PyTorch's own derivative."""
    for chunk in _chunks(hidden, behind.outputs):
        with torch.set_grad_enabled(grad is not None):
            states = hidden[chunk].detach().requires_grad_(grad is not None)
            own = F.cross_entropy(behind(head(states[None])[0]), targets[chunk], reduction="none")
            total = own.sum()
        losses[chunk] = own.detach()
        if grad is not None:
            grad[chunk] = torch.autograd.grad(total, states)[0]


def _chunks(hidden: Tensor, width: int) -> Iterator[slice]:
    """Which tokens make a chunk; chunks are of about one size."""
    most = max(1, CHUNK.get(hidden.device.type, _ELSEWHERE) // (4 * width))
    step = -(-len(hidden) // -(-len(hidden) // most))
    for start in range(0, len(hidden), step):
        yield slice(start, min(start + step, len(hidden)))
