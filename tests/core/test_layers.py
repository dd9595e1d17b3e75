import torch
from torch import nn

from llmad.layers import Linear


def test_it_is_torchs_linear_in_the_dtype_of_its_weight():
    layer, x = Linear(4, 3), torch.randn(2, 4)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_the_gradient_reaches_a_float32_weight_from_bfloat16_states():
    layer = Linear(4, 3, bias=False)
    layer(torch.ones(2, 4, dtype=torch.bfloat16)).sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.count_nonzero() == 12
