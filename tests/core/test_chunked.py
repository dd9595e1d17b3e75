"""The loss behind a frozen head, chunk by chunk, beside float64 and all logits at once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from llmad import chunked
from llmad.chunked import Linear, chunked_losses
from llmad.head import Behind

WIDTH, OUTPUTS = 8, 23
CLOSE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
DTYPES = st.sampled_from(list(CLOSE))


def made(tokens, dtype, bias, width=OUTPUTS, seed=0):
    """Hidden states, targets, weight and bias."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, WIDTH, generator=draw).to(dtype).requires_grad_()
    weight, offset = (torch.randn(*size, generator=draw).to(dtype) for size in ((OUTPUTS, WIDTH), (OUTPUTS,)))
    return hidden, torch.randint(width, (tokens,), generator=draw), weight, offset if bias else None


def exact(hidden, targets, weight, bias, behind):
    """The loss and the gradient in float64, of all tokens at once."""
    hidden = hidden.detach().double().requires_grad_()
    logits = F.linear(hidden, weight.double(), None if bias is None else bias.double())[:, : behind.width]
    logits = logits * behind.scale
    if behind.limit is not None:
        logits = behind.limit * torch.tanh(logits / behind.limit)
    loss = F.cross_entropy(logits, targets, reduction="sum")
    return loss.detach(), torch.autograd.grad(loss, hidden)[0]


def near(found, wanted, close):
    assert (found.double() - wanted).norm() <= close * (wanted.norm() + 0.1)


@given(
    tokens=st.integers(1, 20),
    chunk=st.integers(1, 21),
    block=st.integers(1, OUTPUTS + 1),
    dtype=DTYPES,
    bias=st.booleans(),
    width=st.integers(1, OUTPUTS),
    scale=st.sampled_from([1.0, 0.0625, 3.0, -0.5]),
    limit=st.sampled_from([None, 0.5, 30.0]),
    linear=st.booleans(),
    fast=st.booleans(),
)
def test_against_float64(tokens, chunk, block, dtype, bias, width, scale, limit, linear, fast):
    hidden, targets, weight, offset = made(tokens, dtype, bias, width)
    behind = Behind(OUTPUTS, width, scale, limit)
    head = Linear(weight, offset) if linear else lambda states: F.linear(states, weight, offset)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(chunked.CHUNK, "cpu", 4 * OUTPUTS * chunk)
        patched.setattr(chunked, "_BLOCK", 4 * WIDTH * block)
        patched.setattr(chunked, "multiplies", lambda weight: fast)
        loss = chunked_losses(hidden, targets, head, behind).sum()
    (grad,) = torch.autograd.grad(loss, hidden)
    wanted, wanted_grad = exact(hidden, targets, weight, offset, behind)
    assert loss.dtype == torch.float32
    assert grad.dtype == dtype
    near(loss.detach(), wanted, CLOSE[dtype])
    near(grad, wanted_grad, CLOSE[dtype])


@given(dtype=DTYPES, limit=st.sampled_from([None, 30.0]))
def test_logits_of_any_size(dtype, limit):
    hidden, targets, weight, offset = made(6, dtype, True)
    loss = chunked_losses(hidden, targets, Linear(weight * 100, offset), Behind(OUTPUTS, OUTPUTS, 1.0, limit)).sum()
    (grad,) = torch.autograd.grad(loss, hidden)
    wanted, wanted_grad = exact(hidden, targets, weight * 100, offset, Behind(OUTPUTS, OUTPUTS, 1.0, limit))
    near(loss.detach(), wanted, CLOSE[dtype])
    near(grad, wanted_grad, CLOSE[dtype] * 10)


def test_the_incoming_gradient_scales():
    hidden, targets, weight, _ = made(5, torch.float32, False)
    loss = chunked_losses(hidden, targets, Linear(weight, None), Behind(OUTPUTS, OUTPUTS)).sum()
    (once,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    (tenfold,) = torch.autograd.grad(loss * 10, hidden)
    torch.testing.assert_close(tenfold, once * 10)


def test_a_second_derivative_is_refused():
    hidden, targets, weight, _ = made(5, torch.float32, False)
    loss = chunked_losses(hidden, targets, Linear(weight, None), Behind(OUTPUTS, OUTPUTS)).sum()
    (grad,) = torch.autograd.grad(loss * hidden.sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


class Largest(TorchDispatchMode):
    """How many numbers the largest new tensor has, and how many products of matrices there are."""

    size = products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.products += "mm" in func.__name__
        if isinstance(out, torch.Tensor) and not any(out is arg for arg in args):
            self.size = max(self.size, out.numel())
        return out


@pytest.mark.parametrize("linear", [True, False])
def test_no_more_than_a_chunk_of_logits(linear, monkeypatch):
    hidden, targets, weight, _ = made(64, torch.float32, False)
    monkeypatch.setitem(chunked.CHUNK, "cpu", 4 * OUTPUTS * 4)
    head = Linear(weight, None) if linear else lambda states: F.linear(states, weight)
    with Largest() as seen:
        loss = chunked_losses(
            hidden[:, :1].expand(-1, WIDTH) * 0 + hidden, targets, head, Behind(OUTPUTS, OUTPUTS)
        ).sum()
        loss.backward()
    assert seen.size <= max(64 * WIDTH, 4 * OUTPUTS)
    assert seen.products == 2 * 16


@pytest.mark.parametrize("linear", [True, False])
def test_no_gradient_is_made_that_nobody_wants(linear):
    hidden, targets, weight, _ = made(5, torch.float32, False)
    head = Linear(weight, None) if linear else lambda states: F.linear(states, weight)
    with Largest() as seen:
        loss = chunked_losses(hidden.detach(), targets, head, Behind(OUTPUTS, OUTPUTS)).sum()
    assert not loss.requires_grad
    assert seen.products == 1


def test_the_weights_gradient_is_not_asked_for():
    hidden, targets, weight, _ = made(5, torch.float32, False)
    weight = nn.Parameter(weight, requires_grad=False)
    chunked_losses(hidden, targets, Linear(weight, None), Behind(OUTPUTS, OUTPUTS)).sum().backward()
    assert weight.grad is None
