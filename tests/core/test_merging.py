import pytest
import torch
from torch import nn

import llmad
from llmad import ModelError, UsageError

MERGEABLE = [
    "lora", "lora[sites=linear]", "lora[sites=attn.q@before+mlp.down@before]", "lora[sites=attn.*@before]",
    "lora[sites=attn.q+attn.q@before+attn.v]", "lora[sites=path:.*(q_proj|query_key_value|fc1|fc_in)]",
    "lora[sites=attn.k,layers=1]",
]  # fmt: skip


@pytest.mark.parametrize("spec", MERGEABLE)
def test_the_merged_model_computes_the_same(model, logits, perturb, spec):
    plain = logits(model)
    llmad.attach(model, spec)
    perturb(model)
    adapted = logits(model)
    assert llmad.merge(model) is model
    torch.testing.assert_close(logits(model), adapted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(model), plain, atol=1e-3)
    assert not any("adapters" in name for name, _ in model.named_modules())
    with pytest.raises(UsageError):
        llmad.detach(model)


def test_an_untied_head_can_be_merged(tiny, logits, perturb):
    model = llmad.attach(tiny("llama"), "lora[sites=head]")
    perturb(model)
    adapted = logits(model)
    torch.testing.assert_close(logits(llmad.merge(model)), adapted, atol=1e-5, rtol=1e-5)


def test_a_transposed_weight_can_be_merged():
    from transformers.pytorch_utils import Conv1D

    from llmad import Site, weights
    from llmad.merging import _folded

    linear, site = Conv1D(4, 3), Site("x", "attn.q", 0, 3, 4)
    layer = llmad.parse_spec("lora[r=2]").build(site)
    vars(layer)["site"] = site
    nn.init.normal_(layer.up.weight)
    x = torch.randn(5, 3)
    wanted = layer(linear, x)
    weights.write(linear, site, *_folded(linear, site, layer))
    torch.testing.assert_close(linear(x), wanted)


def test_flags_come_back_after_merging(llama):
    llama.lm_head.weight.requires_grad_(False)
    llmad.merge(llmad.attach(llama, "lora"))
    assert [name for name, parameter in llama.named_parameters() if not parameter.requires_grad] == ["lm_head.weight"]


def test_a_bfloat16_weight_is_rounded_once(llama, perturb):
    llmad.attach(llama.to(torch.bfloat16), "lora[layers=0,sites=attn.q]")
    perturb(llama)
    linear = llama.model.layers[0].self_attn.q_proj
    (lora,) = linear.adapters["default"].values()
    wanted = (linear.weight.float() + lora.delta()).bfloat16()
    llmad.merge(llama)
    assert torch.equal(linear.weight, wanted)


def test_a_float64_weight_loses_nothing(llama, logits):
    before = logits(llama.double())
    llmad.merge(llmad.attach(llama, "lora"))
    assert torch.equal(logits(llama), before)


def test_what_stays_acts_on_what_was_merged(llama, logits, perturb):
    llmad.attach(llama, "lora", "first")
    llmad.attach(llama, "series[sites=attn.q+attn.v]", "second")
    perturb(llama, "first")
    perturb(llama, "second")
    adapted = logits(llama)
    torch.testing.assert_close(logits(llmad.merge(llama, "first")), adapted, atol=1e-5, rtol=1e-5)


def refused(model, snapshot, name="default"):
    """The reason for which merging is refused; nothing may have changed."""
    before = snapshot(model)
    with pytest.raises(ModelError) as caught:
        llmad.merge(model, name)
    assert caught.value.code == "not-mergeable"
    assert snapshot(model) == before
    return str(caught.value)


@pytest.mark.parametrize("spec", ["series", "parallel", "prompt[num_virtual_tokens=2]"])
def test_what_is_not_linear_is_refused(model, snapshot, spec):
    assert "not a linear update" in refused(llmad.attach(model, spec), snapshot)


def test_a_tied_head_is_refused(tiny, snapshot):
    assert "tied" in refused(llmad.attach(tiny("bloom"), "lora[sites=attn.q+head]"), snapshot)


def test_numbers_that_are_not_finite_are_refused(model, snapshot):
    llmad.attach(model, "lora")
    list(llmad.parameters(model))[-1][1].data[0, 0] = float("nan")
    assert "not finite" in refused(model, snapshot)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_a_quantised_weight_is_refused(llama, snapshot, dtype):
    llmad.attach(llama, "lora")
    linear = llama.model.layers[2].self_attn.v_proj
    linear.weight = nn.Parameter(linear.weight.data.view(torch.uint8)[:, :32].clone().view(dtype), requires_grad=False)
    if dtype == torch.float8_e4m3fn:  # numpy, which the snapshot uses, has no such dtype
        with pytest.raises(ModelError, match="quantised"):
            llmad.merge(llama)
    else:
        assert "quantised" in refused(llama, snapshot)


def test_a_weight_that_is_not_in_memory_is_refused(llama):
    import accelerate

    accelerate.cpu_offload(llama, torch.device("cpu"))
    llmad.attach(llama, "lora")
    with pytest.raises(ModelError, match="not in memory"):
        llmad.merge(llama)


def test_another_adapter_before_it_at_the_same_place_is_refused(llama, snapshot):
    llmad.attach(llama, "series[sites=attn.q]", "first")
    llmad.attach(llama, "lora", "second")
    assert "'first' acts before 'second'" in refused(llama, snapshot, "second")


def test_an_adapter_that_is_not_there_is_told(llama):
    with pytest.raises(UsageError, match="no adapter 'default'"):
        llmad.merge(llama)


def test_nothing_is_merged_below_an_adapter_that_uses_the_weight(llama, snapshot):
    llmad.attach(llmad.attach(llama, "lora[sites=mlp.down]", "a"), "dora[sites=mlp.down]", "b")
    before = snapshot(llama)
    with pytest.raises(llmad.ModelError, match=r"adapter 'b' uses the weight of model.layers.0.mlp.down_proj"):
        llmad.merge(llama, "a")
    assert snapshot(llama) == before


def test_a_weight_that_would_leave_its_range_is_refused(llama, snapshot):
    llmad.attach(llama.to(torch.float16), "lora")
    with torch.no_grad():
        for _, parameter in llmad.parameters(llama):
            parameter.fill_(200)
    before = snapshot(llama)
    with pytest.raises(llmad.ModelError, match="would leave the range of float16"):
        llmad.merge(llama)
    assert snapshot(llama) == before


def test_nothing_is_merged_while_other_adapters_are_active(llama):
    llmad.attach(llama, "lora")
    with llmad.disabled(llama), pytest.raises(llmad.ModelError, match="active for a while"):
        llmad.merge(llama)
