"""Proof that training left the base as it was."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import llmad
from llmad import frozen
from llmad.errors import ModelError


@pytest.fixture
def model():
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return llmad.attach(LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)), "lora")


def test_the_adapter_may_change(model, perturb):
    before = frozen.sums(model)
    perturb(model)
    frozen.check(model, before)


@pytest.mark.parametrize("place", [(0, 0), (-1, -1)])
def test_a_single_bit_of_the_base_is_seen(model, place):
    before = frozen.sums(model)
    weight = model.model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        weight.view(torch.int32)[place] ^= 1
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight of the frozen base"):
        frozen.check(model, before)


def test_a_parameter_that_is_gone_is_seen(model):
    before = frozen.sums(model)
    model.lm_head.weight.requires_grad_(True)
    with pytest.raises(ModelError, match=r"lm_head\.weight"):
        frozen.check(model, before)


def test_other_dtypes_have_sums_too(model):
    assert frozen.sums(model.to(torch.bfloat16)).keys() == frozen.sums(model).keys()
