"""What every backbone plugin promises: its sizes can be planned without weights, and its rules hold for them."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import llmad
from llmad.registry import registry

SHAPES = [(rules.name, size) for rules in registry().backbones() for size in rules.shapes]
# As published, in units of a million parameters.
MILLIONS = {
    "llama-7b": 6738, "llama-13b": 13016, "llama-30b": 32529, "llama-65b": 65286, "llama-2-7b": 6738,
    "llama-2-13b": 13016, "llama-2-70b": 68977, "llama-3-8b": 8030, "llama-3-70b": 70554, "mistral-7b": 7242,
    "bloom-560m": 559, "bloom-1b1": 1065, "bloom-1b7": 1722, "bloom-3b": 3003, "bloom-7b1": 7069,
    "bloom-176b": 176247, "gptj-6b": 6051, "opt-125m": 125, "opt-350m": 331, "opt-1.3b": 1316, "opt-2.7b": 2652,
    "opt-6.7b": 6658, "opt-13b": 12853, "opt-30b": 29975, "opt-66b": 65720,
    "gpt2": 124, "gpt2-medium": 355, "gpt2-large": 774, "gpt2-xl": 1558, "pythia-70m": 70, "pythia-160m": 162,
    "pythia-410m": 405, "pythia-1b": 1012, "pythia-1.4b": 1415, "pythia-2.8b": 2775, "pythia-6.9b": 6857,
    "pythia-12b": 11846, "gpt-neox-20b": 20555, "phi-3-mini": 3821, "phi-3-medium": 13960,
}  # fmt: skip


def on_meta(backbone, size):
    (rules,) = [rules for rules in registry().backbones() if rules.name == backbone]
    shape = dict(rules.shapes[size])
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(shape.pop("model_type"), **shape))


@pytest.mark.parametrize(("backbone", "size"), SHAPES, ids=[size for _, size in SHAPES])
def test_a_well_known_size_has_its_published_number_of_parameters(backbone, size):
    model = on_meta(backbone, size)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == MILLIONS[size]


@pytest.mark.parametrize("size", ["llama-7b", "bloom-560m", "gptj-6b", "opt-350m"])
def test_an_adapter_can_be_planned_without_weights(size):
    (backbone,) = [backbone for backbone, known in SHAPES if known == size]
    model = llmad.attach(on_meta(backbone, size), "lora[r=8,sites=linear,layers=:2]")
    assert all(parameter.is_meta for _, parameter in llmad.parameters(model))


def test_no_model_type_is_described_twice():
    kinds = [kind for rules in registry().backbones() for kind in rules.model_types]
    assert len(set(kinds)) == len(kinds)


GROWN = ("gpt2", "gpt_neox", "phi3", "qwen2")  # the families besides those that every test runs on
grown = pytest.mark.parametrize("architecture", GROWN)


@grown
@pytest.mark.parametrize("role", "qkv")
def test_an_adapter_on_one_of_q_k_v_reaches_that_one_alone(model, heads, perturb, role):
    before = heads(model)
    (site,) = [site for site in llmad.sites(model) if site.layer == 0 and site.role == f"attn.{role}"]
    inputs = []
    model.get_submodule(site.path).register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    llmad.attach(model, f"lora[r=2,sites=attn.{role},layers=0]")
    perturb(model)
    after = heads(model)
    (lora,) = model.get_submodule(site.path).adapters["default"].values()
    wanted = before[role][:, 0] + inputs[0][:, 0] @ lora.delta().T
    torch.testing.assert_close(after[role][:, 0], wanted, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(after[role], before[role], atol=1e-3)
    assert all(torch.equal(after[other], before[other]) for other in before.keys() - {role})


@grown
@pytest.mark.parametrize("spec", ["lora", "series", "parallel", "prompt[num_virtual_tokens=3]"])
def test_it_starts_as_nothing_is_saved_and_loaded_and_comes_off_again(
    model, architecture, tiny, logits, perturb, snapshot, tmp_path, spec
):
    next(model.parameters()).requires_grad_(False)
    known, before = snapshot(model), logits(model)
    llmad.attach(model, spec)
    assert torch.equal(logits(model), before) or spec.startswith("prompt")
    perturb(model)
    adapted = logits(model)
    assert not torch.allclose(adapted, before, atol=1e-3)
    folder = llmad.save(model, tmp_path / "adapter")
    assert torch.equal(logits(llmad.load(tiny(architecture), folder)), adapted)
    assert torch.equal(logits(llmad.detach(model)), before)
    assert snapshot(model) == known


@grown
@pytest.mark.parametrize("spec", ["lora", "lora[sites=linear]", "lora[sites=attn.*@before]", "lora[sites=attn.k]"])
def test_lora_can_be_merged(model, logits, perturb, spec):
    plain = logits(model)
    llmad.attach(model, spec)
    perturb(model)
    adapted = logits(model)
    torch.testing.assert_close(logits(llmad.merge(model)), adapted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(adapted, plain, atol=1e-3)


@grown
@pytest.mark.parametrize("spec", ["lora[sites=linear]", "series[sites=block]", "prompt[num_virtual_tokens=3]"])
def test_the_cache_changes_nothing(model, ids, perturb, spec):
    llmad.attach(model, spec)
    perturb(model)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, **options, use_cache=False))
