"""DoRA against its equation and against PEFT, in both directions."""

import json

import peft
import pytest
import torch

import llmad

# PEFT asks transformers for a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TARGETS = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "bloom": ["query_key_value", "dense_h_to_4h"],
    "opt": ["q_proj", "fc1"],
    "opt-350m": ["q_proj", "fc1", "project_in"],
    "gptj": ["q_proj", "fc_in"],
}


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_the_output_is_the_equation(tiny, architecture, perturb):
    """In float64, on a linear map with a bias and on one without."""
    model = llmad.attach(tiny(architecture).double(), "dora[r=4,alpha=6,sites=attn.q,layers=0]")
    perturb(model.double())
    (site,) = [site for site in llmad.sites(model) if site.role == "attn.q" and site.layer == 0]
    linear = model.get_submodule(site.path)
    (dora,) = linear.adapters["default"].values()
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    turned = linear.weight + 6 / 4 * dora.up.weight @ dora.down.weight
    wanted = x @ (dora.magnitude[:, None] * turned / turned.norm(dim=1, keepdim=True)).T
    wanted = wanted if linear.bias is None else wanted + linear.bias
    torch.testing.assert_close(linear(x), wanted, atol=1e-6, rtol=1e-6)  # the norm is float32's


@pytest.mark.parametrize(
    "spec", ["dora", "dora[sites=linear,rslora=true]", "dora[sites=attn.o+mlp.up,rank_pattern={mlp.up: 2}]"]
)
def test_merging_changes_nothing_but_rounding(model, logits, perturb, spec):
    perturb(llmad.attach(model, spec))
    before = logits(model)
    llmad.merge(model)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", ["dora[r=4,sites=attn.o+mlp.up+mlp.down]", "dora[r=4,rslora=true,sites=mlp.up]"])
def test_peft_loads_what_was_saved(model, architecture, tiny, logits, perturb, tmp_path, spec):
    perturb(llmad.attach(model, spec))
    theirs = peft.PeftModel.from_pretrained(tiny(architecture), llmad.save(model, tmp_path / "adapter"))
    torch.testing.assert_close(logits(theirs.eval()), logits(model), atol=1e-5, rtol=1e-5)


def test_what_peft_wrote_loads_here(architecture, tiny, logits, tmp_path):
    torch.manual_seed(5)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=6, use_dora=True, target_modules=TARGETS[architecture]
    )
    theirs = peft.get_peft_model(tiny(architecture), config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "peft")
    ours = llmad.load(tiny(architecture), tmp_path / "peft")
    assert not torch.allclose(logits(ours), logits(tiny(architecture)), atol=1e-3)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)
    again = llmad.load(tiny(architecture), llmad.save(ours, tmp_path / "again"))
    assert torch.equal(logits(again), logits(ours))


def test_a_role_of_a_fused_linear_keeps_the_others(tiny, logits, perturb, tmp_path):
    model = perturbed = llmad.attach(tiny("bloom"), "dora[sites=attn.q]")
    perturb(perturbed)
    path = "transformer.h.0.self_attention.query_key_value"
    x = torch.randn(1, 3, 32)
    with torch.no_grad():
        found, plain = model.get_submodule(path)(x), tiny("bloom").get_submodule(path)(x)
    heads, before = found.view(1, 3, 4, 3, 8), plain.view(1, 3, 4, 3, 8)
    assert torch.equal(heads[..., 1:, :], before[..., 1:, :])
    assert not torch.allclose(heads[..., 0, :], before[..., 0, :])
    folder = llmad.save(model, tmp_path / "a")
    assert "method" in json.loads((folder / "adapter_config.json").read_text())  # PEFT has no words for half a linear
    assert torch.equal(logits(llmad.load(tiny("bloom"), folder)), logits(model))


def test_dropout_leaves_the_other_roles_alone(tiny, perturb):
    model = llmad.attach(tiny("bloom"), "dora[sites=attn.q,dropout=0.5]").train()
    perturb(model)
    path = "transformer.h.0.self_attention.query_key_value"
    x = torch.randn(1, 3, 32)
    found, plain = model.get_submodule(path)(x), tiny("bloom").get_submodule(path)(x)
    assert torch.equal(found.view(1, 3, 4, 3, 8)[..., 1:, :], plain.view(1, 3, 4, 3, 8)[..., 1:, :])


def test_no_gradient_goes_through_the_norm(llama):
    llmad.attach(llama, "dora[sites=attn.q,layers=0]")
    (dora,) = llama.model.layers[0].self_attn.q_proj.adapters["default"].values()
    assert not dora.norm().requires_grad


def test_a_place_without_a_weight_is_refused(llama, snapshot):
    before = snapshot(llama)
    with pytest.raises(llmad.ModelError, match="scales a weight") as caught:
        llmad.attach(llama, "dora[sites=attn.q@before]")
    assert caught.value.code == "misfit"
    assert snapshot(llama) == before


def test_a_row_of_zeros_is_merged_as_it_computes(llama, logits):
    with torch.no_grad():
        llama.model.layers[0].mlp.down_proj.weight[0] = 0
    llmad.attach(llama, "dora[sites=mlp.down]")
    before = logits(llama)
    torch.testing.assert_close(logits(llmad.merge(llama)), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", ["dora", "ia3"])
def test_a_small_change_is_not_rounded_away_in_half_precision(llama, logits, spec):
    before = logits(llmad.attach(llama.to(torch.bfloat16), spec))
    with torch.no_grad():
        for name, parameter in llmad.parameters(llama):
            if name.endswith(("magnitude", "factors")):
                parameter.mul_(1.003)
    assert not torch.equal(logits(llama), before)
