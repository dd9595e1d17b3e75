"""The parallel adapter against its equation, and beside parts that add their residual themselves."""

import pytest
import torch
from torch import nn

import llmad
from llmad import Site


@pytest.mark.parametrize(("scaling", "factor"), [("1.0", 1.0), ("4.0", 4.0), ("learned", 1.0)])
def test_the_output_is_the_equation(scaling, factor):
    spec = llmad.parse_spec(f"parallel[bottleneck=3,init=paper,activation=tanh,scaling={scaling}]")
    layer, linear = spec.build(Site("x", "attn.q", 0, 5, 8)), nn.Linear(5, 8).double()
    nn.init.normal_(layer.up.bias)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    down, up = ({key: value.double() for key, value in part.state_dict().items()} for part in (layer.down, layer.up))
    update = torch.tanh(x @ down["weight"].T + down["bias"]) @ up["weight"].T + up["bias"]
    wanted = x @ linear.weight.T + linear.bias + factor * update
    torch.testing.assert_close(layer(linear, x), wanted, atol=1e-12, rtol=1e-9)


def test_beside_an_mlp_it_sees_what_the_mlp_sees(tiny, ids, perturb):
    model = llmad.attach(tiny("bloom"), "parallel[sites=mlp,layers=0]")
    perturb(model)
    mlp, seen = model.transformer.h[0].mlp, {}
    (layer,) = mlp.adapters["default"].values()
    mlp.register_forward_hook(lambda module, inputs, out: seen.update(x=inputs[0], residual=inputs[1], out=out))
    model(ids)
    inner = mlp.dense_4h_to_h(mlp.gelu_impl(mlp.dense_h_to_4h(seen["x"])))
    torch.testing.assert_close(seen["out"], inner + layer.through(seen["x"]) + seen["residual"])


def test_its_default_places_are_q_k_and_v(tiny):
    model = llmad.attach(tiny("bloom"), "parallel[layers=0]")
    assert {name.partition("[")[2].partition("]")[0] for name, _ in llmad.parameters(model)} == {
        "attn.q", "attn.k", "attn.v"
    }  # fmt: skip


def test_dropout_acts_in_training_alone(llama, ids):
    llmad.attach(llama, "parallel[dropout=0.5,init=paper]")
    assert torch.equal(llama(ids).logits, llama(ids).logits)
    llama.train()
    assert not torch.equal(llama(ids).logits, llama(ids).logits)
