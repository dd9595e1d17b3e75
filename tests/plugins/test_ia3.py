"""IA3 against its equation and against PEFT, in both directions."""

import json

import peft
import pytest
import torch

import llmad

# PEFT asks transformers for a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TARGETS = {  # all targets, and of these the ones whose input is scaled
    "llama": (["k_proj", "v_proj", "down_proj"], ["down_proj"]),
    "bloom": (["query_key_value", "dense_4h_to_h"], ["dense_4h_to_h"]),
    "opt": (["k_proj", "fc2"], ["fc2"]),
    "opt-350m": (["v_proj", "fc2"], ["fc2"]),
    "gptj": (["k_proj", "v_proj", "fc_out"], ["fc_out"]),
}


def test_the_output_is_the_equation(llama, perturb):
    perturb(llmad.attach(llama.double(), "ia3").double())
    block = llama.model.layers[0]
    (k,), (inner,) = (place.adapters["default"].values() for place in (block.self_attn.k_proj, block.mlp.down_proj))
    x, wide = torch.randn(2, 5, 32, dtype=torch.float64), torch.randn(2, 5, 48, dtype=torch.float64)
    torch.testing.assert_close(block.self_attn.k_proj(x), k.factors * (x @ block.self_attn.k_proj.weight.T))
    torch.testing.assert_close(block.mlp.down_proj(wide), (inner.factors * wide) @ block.mlp.down_proj.weight.T)


@pytest.mark.parametrize("spec", ["ia3", "ia3[sites=linear]", "ia3[sites=attn.q@before+attn.o+mlp.up@before]"])
def test_merging_changes_nothing_but_rounding(model, logits, perturb, spec):
    perturb(llmad.attach(model, spec))
    before = logits(model)
    llmad.merge(model)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", ["ia3", "ia3[sites=linear]", "ia3[sites=attn.q+mlp.down@before,layers=1:]"])
def test_peft_loads_what_was_saved(model, architecture, tiny, logits, perturb, tmp_path, spec):
    perturb(llmad.attach(model, spec))
    theirs = peft.PeftModel.from_pretrained(tiny(architecture), llmad.save(model, tmp_path / "adapter"))
    torch.testing.assert_close(logits(theirs.eval()), logits(model), atol=1e-5, rtol=1e-5)


def test_what_peft_wrote_loads_here(architecture, tiny, logits, tmp_path):
    torch.manual_seed(5)
    targets, inner = TARGETS[architecture]
    config = peft.IA3Config(task_type="CAUSAL_LM", target_modules=targets, feedforward_modules=inner)
    theirs = peft.get_peft_model(tiny(architecture), config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "ia3_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "peft")
    ours = llmad.load(tiny(architecture), tmp_path / "peft")
    assert not torch.allclose(logits(ours), logits(tiny(architecture)), atol=1e-3)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)
    again = llmad.load(tiny(architecture), llmad.save(ours, tmp_path / "again"))
    assert torch.equal(logits(again), logits(ours))


@pytest.mark.parametrize("spec", ["ia3[sites=attn.q+attn.q@before]", "ia3[sites=attn.k@before+mlp.up]"])
def test_what_peft_cannot_say_is_saved_all_the_same(tiny, logits, perturb, tmp_path, spec):
    model = llmad.attach(tiny("bloom"), spec)
    perturb(model)
    folder = llmad.save(model, tmp_path / "a")
    assert "method" in json.loads((folder / "adapter_config.json").read_text())
    assert torch.equal(logits(llmad.load(tiny("bloom"), folder)), logits(model))


@pytest.mark.parametrize("change", [{"modules_to_save": ["lm_head"]}, {"target_modules": ".*k_proj"}])
def test_what_cannot_be_read_is_refused(tiny, tmp_path, snapshot, change):
    options = {"target_modules": ["k_proj"], "feedforward_modules": [], **change}
    peft.IA3Config(task_type="CAUSAL_LM", **options).save_pretrained(tmp_path / "peft")
    model = tiny("llama")
    before = snapshot(model)
    with pytest.raises(llmad.ModelError) as caught:
        llmad.load(model, tmp_path / "peft")
    assert caught.value.code == "foreign-adapter"
    assert snapshot(model) == before
