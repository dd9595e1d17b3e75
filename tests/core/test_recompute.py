"""Blocks that are computed again have the gradients of those that are kept."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import llmad
from llmad import recompute
from llmad.loss import answer_loss
from tests import zoo


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=97)).eval()


def gradients(model):
    ids = torch.arange(24).reshape(2, 12)
    for parameter in model.parameters():
        parameter.grad = None
    torch.manual_seed(1)
    answer_loss(model.train(), {"input_ids": ids}, ids).backward()
    return [parameter.grad for _, parameter in llmad.parameters(model)]


@pytest.mark.parametrize("spec", ["lora[dropout=0.2]", "series", "ia3", "prompt"])
def test_the_gradients_are_the_plain_runs(model, spec):
    llmad.attach(model, spec)
    plain = gradients(model)
    recompute.enable(model)
    assert any(getattr(part, "gradient_checkpointing", False) for part in model.modules())
    for one, other in zip(gradients(model), plain, strict=True):
        torch.testing.assert_close(one, other)
    recompute.disable(model)
    assert not any(getattr(part, "gradient_checkpointing", False) for part in model.modules())


def test_what_an_adapter_has_against_it_is_told_at_once(model):
    llmad.attach(model, "prefix")
    modes = [part.training for part in model.modules()]
    with pytest.raises(llmad.ModelError) as caught:
        recompute.enable(model)
    assert caught.value.code == "virtual-checkpointing"
    assert not any(getattr(part, "gradient_checkpointing", False) for part in model.modules())
    assert modes == [part.training for part in model.modules()]


def test_a_model_that_cannot_is_refused(model, monkeypatch):
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(llmad.ModelError) as caught:
        recompute.enable(model)
    assert caught.value.code == "no-checkpointing"


@pytest.mark.parametrize("kind", ["git", "blt"])  # they add to the frozen embedding's output in place
def test_an_embedding_that_is_added_to_in_place_is_trained_behind(kind):
    model = zoo.build(kind)
    llmad.attach(model, "lora")
    plain = gradients(model)
    recompute.enable(model)
    for one, other in zip(gradients(model), plain, strict=True):
        torch.testing.assert_close(one, other)
