"""The series adapter against its equation, and on parts that add their residual themselves."""

import pytest
import torch
from torch import nn

import llmad
from llmad import ModelError, Site


def reference(layer, h, function, scaling):
    """out = h + scaling * (W_up act(W_down h + b_down) + b_up), in float64."""
    down, up = ({key: value.double() for key, value in part.state_dict().items()} for part in (layer.down, layer.up))
    middle = function(h @ down["weight"].T + down["bias"])
    return h + scaling * (middle @ up["weight"].T + up["bias"])


@pytest.mark.parametrize(("activation", "function"), [
    ("relu", torch.relu), ("gelu", nn.functional.gelu), ("silu", nn.functional.silu), ("tanh", torch.tanh),
    ("leaky_relu", nn.functional.leaky_relu), ("sigmoid", torch.sigmoid), ("linear", lambda x: x),
])  # fmt: skip
@pytest.mark.parametrize(("scaling", "factor"), [("1.0", 1.0), ("0.5", 0.5), ("learned", 1.0)])
def test_the_output_is_the_equation(activation, function, scaling, factor):
    spec = llmad.parse_spec(f"series[bottleneck=3,init=paper,activation={activation},scaling={scaling}]")
    layer, linear = spec.build(Site("x", "attn.o", 0, 5, 8)), nn.Linear(5, 8).double()
    nn.init.normal_(layer.up.bias)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(linear, x), reference(layer, linear(x), function, factor), atol=1e-12, rtol=1e-9)


def test_a_learned_scaling_multiplies_the_update():
    layer = llmad.parse_spec("series[init=paper,scaling=learned]").build(Site("x", "attn.o", 0, 8, 8))
    x = torch.randn(2, 8)
    with torch.no_grad():
        once = layer(lambda x: x, x) - x
        layer.scaling.fill_(3.0)
        torch.testing.assert_close(layer(lambda x: x, x) - x, 3 * once)


@pytest.mark.parametrize(("init", "zero"), [("zero", True), ("paper", False)])
def test_the_start_is_what_init_says(init, zero):
    layer = llmad.parse_spec(f"series[init={init}]").build(Site("x", "attn.o", 0, 256, 256))
    assert bool(layer.up.weight.count_nonzero() == 0) is zero
    assert layer.up.bias.count_nonzero() == 0
    if not zero:
        assert layer.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.down.bias.count_nonzero() == 0


@pytest.mark.parametrize(("part", "linear"), [("attn", "attn.o"), ("mlp", "mlp.down")])
@pytest.mark.parametrize("architecture", ["llama", "bloom", "gptj"])
def test_after_a_part_is_after_its_last_linear(tiny, architecture, logits, perturb, part, linear):
    models = [llmad.attach(tiny(architecture), f"series[sites={site}]") for site in (part, linear)]
    for model in models:
        perturb(model)
    torch.testing.assert_close(logits(models[0]), logits(models[1]), atol=1e-6, rtol=1e-5)


def test_its_default_places_are_after_attention_and_mlp(llama):
    llmad.attach(llama, "series[layers=0]")
    paths = [name.partition(":")[0] for name, _ in llmad.parameters(llama)]
    assert set(paths) == {"model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"}


def test_it_cannot_be_merged(llama):
    with pytest.raises(ModelError, match="not a linear update"):
        llmad.merge(llmad.attach(llama, "series"))
