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
