import pytest
import torch
from torch import nn

from llmad.layers import Linear, weight_of


def test_it_is_torchs_linear_in_the_dtype_of_its_weight():
    layer, x = Linear(4, 3), torch.randn(2, 4)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_the_gradient_reaches_a_float32_weight_from_bfloat16_states():
    layer = Linear(4, 3, bias=False)
    layer(torch.ones(2, 4, dtype=torch.bfloat16)).sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.count_nonzero() == 12


@pytest.mark.parametrize("scale", [0.5, torch.tensor(0.5, requires_grad=True)], ids=["fixed", "learned"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 5), (7,)], ids=str)
def test_a_sum_is_that_of_its_halves(scale, bias, shape):
    layer, base, x = Linear(4, 6, bias=bias), torch.randn(*shape, 6), torch.randn(*shape, 4)
    wanted, found = base + scale * layer(x), layer.onto(base, x, scale)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    own = [*layer.parameters(), *([scale] if isinstance(scale, torch.Tensor) else [])]
    halves, whole = (torch.autograd.grad(out.sin().sum(), own) for out in (wanted, found))
    for one, other in zip(halves, whole, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)


def test_a_sum_is_in_the_wider_dtype():
    layer, x = Linear(4, 6), torch.randn(2, 4).bfloat16()
    assert layer.onto(torch.randn(2, 6), x).dtype == torch.float32


def test_a_map_of_zeros_changes_no_bit():
    layer, base = Linear(4, 6), torch.randn(3, 2, 6).bfloat16()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    assert torch.equal(layer.onto(base, torch.randn(3, 2, 4).bfloat16(), 3.0), base)


@pytest.mark.parametrize("bias", [True, False])
def test_the_map_of_a_dropped_input(bias):
    layer, x = Linear(40, 6, bias=bias), torch.ones(200, 40)
    torch.manual_seed(0)
    out = layer.of_dropped(x, 0.5)
    assert not torch.equal(out[0], out[1])
    torch.testing.assert_close(out.mean(0), layer(x)[0], atol=0.25, rtol=0)
    assert torch.equal(layer.of_dropped(x, 0.0), layer(x))


def test_the_weight_is_the_one_that_the_layer_has_now():
    layer = Linear(3, 2)
    assert weight_of(layer) is layer.weight
    layer.weight = nn.Parameter(torch.ones(2, 3))
    assert weight_of(layer) is layer.weight
    nn.utils.parametrizations.weight_norm(layer)
    assert torch.equal(weight_of(layer), layer.weight)
