"""The fused low-rank update against its equation."""

import warnings

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses
from torch.utils.checkpoint import checkpoint

from llmad.dropped import Drop
from llmad.layers import Linear
from llmad.low_rank import low_rank

SCALE = 1.5


def parts(dtype=torch.float32, bias=True, adapter=torch.float32):
    """A frozen linear map and a pair A, B, 6 to 10 features through 3."""
    torch.manual_seed(3)
    linear = nn.Linear(6, 10, bias=bias, dtype=dtype).requires_grad_(False)
    return linear, Linear(6, 3, bias=False).to(adapter), Linear(3, 10, bias=False).to(adapter)


def plain(linear, x, down, up):
    """The equation, word by word."""
    return linear(x) + SCALE * up(down(x))


def gradients(out, *wanted):
    torch.manual_seed(5)
    return torch.autograd.grad((out * torch.randn(out.shape).to(out.dtype)).sum(), wanted)


@pytest.mark.parametrize("shape", [(2, 5, 6), (7, 6), (2, 3, 4, 6)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_values_and_gradients_are_those_of_the_equation(shape, bias):
    linear, down, up = parts(bias=bias)
    x = torch.randn(shape, requires_grad=True)
    ours, wanted = low_rank(linear.forward, x, down, up, SCALE, 0.0), plain(linear, x, down, up)
    torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-6)
    own = (x, down.weight, up.weight)
    for found, known in zip(gradients(ours, *own), gradients(wanted, *own), strict=True):
        torch.testing.assert_close(found, known, atol=2e-6, rtol=1e-6)
        assert found.is_contiguous() or found.dtype == torch.float32


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_gradcheck(share, monkeypatch):
    linear, down, up = parts(torch.float64, adapter=torch.float64)
    monkeypatch.setattr("llmad.low_rank.draw", lambda share: Drop(share, 11))
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)

    def function(x, *_):
        return low_rank(linear.forward, x, down, up, SCALE, share)

    assert gradcheck(function, (x, down.weight, up.weight))


def test_half_precision_is_as_near_to_float64_as_the_equation():
    linear, down, up = parts(torch.bfloat16)
    x = torch.randn(3, 40, 6).bfloat16().requires_grad_()
    exact = [part.double() for part in (linear.weight, linear.bias, down.weight, up.weight, x)]
    weight, bias, a, b, wide = (part.detach().requires_grad_() for part in exact)
    true = gradients(F.linear(wide, weight, bias) + SCALE * wide @ a.T @ b.T, wide, a, b)
    own = (x, down.weight, up.weight)
    ours = gradients(low_rank(linear.forward, x, down, up, SCALE, 0.0), *own)
    naive = gradients(plain(linear, x, down, up), *own)
    for found, other, wanted in zip(ours, naive, true, strict=True):
        error, theirs = ((one.double() - wanted).norm() / wanted.norm() for one in (found, other))
        assert error < max(1.2 * theirs, 0.005)
    assert [one.dtype for one in ours] == [torch.bfloat16, torch.float32, torch.float32]


def test_an_input_without_a_gradient_and_a_frozen_adapter_are_fine():
    linear, down, up = parts()
    x = torch.randn(2, 4, 6)
    low_rank(linear.forward, x, down, up.requires_grad_(False), SCALE, 0.0).sum().backward()
    assert down.weight.grad is not None
    assert up.weight.grad is None
    with torch.no_grad():
        assert not low_rank(linear.forward, x, down, up, SCALE, 0.0).requires_grad


def test_an_empty_batch_goes_through():
    linear, down, up = parts()
    assert low_rank(linear.forward, torch.randn(0, 5, 6), down, up, SCALE, 0.0).shape == (0, 5, 10)


@pytest.mark.parametrize("base", [
    lambda linear, x: F.linear(x, linear.weight, linear.bias), lambda linear, x: nn.Linear.forward(linear, x).float(),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_any_other_base_is_called(base, dtype):
    linear, down, up = parts(dtype)
    x = torch.randn(2, 5, 6).to(dtype)
    found = low_rank(lambda x: base(linear, x), x, down, up, SCALE, 0.0)
    wanted = base(linear, x) + SCALE * up(down(x))
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, atol=2e-2 if dtype == torch.bfloat16 else 1e-6, rtol=1e-2)


def test_a_base_that_is_trained_gets_its_gradient():
    linear, down, up = parts()
    linear.requires_grad_()
    low_rank(linear.forward, torch.randn(2, 6), down, up, SCALE, 0.0).sum().backward()
    assert linear.weight.grad.count_nonzero()
    assert linear.bias.grad.count_nonzero()


def kept(function):
    """The tensors that autograd keeps for a call, by where they lie."""
    found = {}

    def pack(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function()
    return out, list(found.values())


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_only_the_input_and_the_middle_are_kept(share):
    linear, down, up = parts()
    x = torch.randn(2, 50, 6, requires_grad=True)
    _, tensors = kept(lambda: low_rank(linear.forward, x, down, up, SCALE, share))
    assert sorted(one.numel() for one in tensors if 100 in one.flatten(0, -2).shape) == [300, 600]


def test_a_product_whose_factors_are_kept_is_not_kept_itself():
    linear, down, up = parts()
    leaf = torch.randn(2, 50, 6, requires_grad=True)
    results = []
    for function in (low_rank, lambda base, x, down, up, *_: plain(linear, x, down, up)):
        (out, x), tensors = kept(lambda function=function: both(leaf.sin() * leaf.cos(), function, linear, down, up))
        held = any(tensor.data_ptr() == x.data_ptr() for tensor in tensors)
        results.append((held, gradients(out, leaf, down.weight)))
    assert [held for held, _ in results] == [False, True]
    for found, wanted in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def both(x, function, linear, down, up):
    return function(linear.forward, x, down, up, SCALE, 0.0), x


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_it_may_be_computed_a_second_time(reentrant, share):
    linear, down, up = parts()
    x = torch.randn(2, 5, 6, requires_grad=True)

    def function(x):
        return low_rank(linear.forward, x.sin() * x.cos(), down, up, SCALE, share)

    found = []
    for call in (function, lambda x: checkpoint(function, x, use_reentrant=reentrant)):
        torch.manual_seed(1)
        x.grad = down.weight.grad = None
        call(x).square().sum().backward()
        found.append((x.grad, down.weight.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_under_autocast_it_is_what_the_equation_is(share):
    linear, down, up = parts()
    x = torch.randn(2, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        found = low_rank(linear.forward, x, down, up, SCALE, share)
        torch.manual_seed(0)
        wanted = linear(x) + SCALE * up(down(F.dropout(x, share)))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_it_compiles_without_a_break(share):
    linear, down, up = parts()
    x = torch.randn(2, 5, 6, requires_grad=True)

    def function(x):
        return low_rank(linear.forward, x, down, up, SCALE, share)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    if not share:
        torch.testing.assert_close(out, function(x))
    out.sum().backward()
    assert down.weight.grad is not None
