"""Models without weights: the same as with them, and none of what would fill them is done."""

import pytest
import torch
from torch import nn

from llmad.twin import hollow, twin


def outline(model):
    """What a model is but for its values."""
    held = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor.shape, tensor.dtype) for name, tensor in held], [str(part) for part in model.modules()]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "opt"])
def test_a_hollow_model_is_the_model_but_for_its_values(tiny, family):
    model = tiny(family)
    with hollow():
        there = type(model)(model.config)
    assert outline(there) == outline(model)
    assert {parameter.device.type for parameter in there.parameters()} == {"meta"}


def test_nothing_is_initialised_where_there_is_no_value(monkeypatch):
    filled = []
    for name in ("uniform_", "normal_"):
        own = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, own=own, **k: filled.append(1) or own(self, *a, **k))
    with hollow():
        weight = nn.Linear(2, 3).weight
        assert nn.init.kaiming_uniform_(weight) is weight
        assert nn.init.normal_(tensor=weight, mean=1.0) is weight
    assert not filled
    nn.Linear(2, 3)
    assert filled


def test_modules_have_values_again_afterwards():
    with hollow():
        pass
    made = nn.Linear(4, 4)
    assert made.weight.device.type == "cpu"
    assert made.weight.std() > 0


def test_a_twin_is_in_half_precision_and_leaves_the_model_alone(llama):
    before = llama.config.to_dict()
    there = twin(llama)
    assert {(parameter.device.type, parameter.dtype) for parameter in there.parameters()} == {("meta", torch.bfloat16)}
    assert llama.config.to_dict() == before
    assert not there.training
