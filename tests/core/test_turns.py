"""Adapters for rows of their own that meet one call of a place together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import llmad
from llmad.host import acting_here
from llmad.turns import turns
from tests.zoo import VOCABULARY, build

SPECS = {"a": "lora", "b": "series[bottleneck=4]", "c": "parallel[sites=mlp,bottleneck=4]", "d": "ia3"}


def adapted(specs=SPECS):
    model = build("llama").eval()
    for name, spec in specs.items():
        llmad.attach(model, spec, name)
    with torch.no_grad():
        for name in specs:
            for _, parameter in llmad.parameters(model, name):
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return model


_MODEL = adapted()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([*SPECS, None]), min_size=1, max_size=7))
def test_every_row_is_what_it_is_alone(names):
    ids = torch.randint(3, VOCABULARY, (len(names), 5), generator=torch.Generator().manual_seed(0))
    with llmad.per_row(_MODEL, names):
        together = _MODEL(ids).logits
    for row, name in enumerate(names):
        llmad.activate(_MODEL, *([name] if name else []))
        torch.testing.assert_close(together[row], _MODEL(ids[row : row + 1]).logits[0], rtol=1e-4, atol=1e-5)


def groups(model, path, names):
    with llmad.per_row(model, names):
        return [[acting.stage.names for acting in group] for group in turns(acting_here(model.get_submodule(path)))]


def test_runs_of_rows_share_a_call():
    model = adapted({"a": "lora", "b": "lora", "c": "lora"})
    place = "model.layers.0.self_attn.q_proj"
    assert groups(model, place, ["a", "b", "b", None, "c"]) == [[("a",), ("b",), ("c",)]]
    assert groups(model, place, ["a", "b", "a"]) == [[("a",)], [("b",)]]  # the rows of a are apart
    assert groups(model, place, [["a", "b"], "c"]) == [[("a",)], [("b",), ("c",)]]  # b sees what a made


def test_the_place_is_asked_once(monkeypatch):
    model, calls = adapted({"a": "lora", "b": "series[sites=attn.q]", "c": "parallel"}), []
    place, real = model.model.layers[0].self_attn.q_proj, torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda own, x: (calls.append(own), real(own, x))[1])
    with llmad.per_row(model, ["a", "a", "b", "c", None]):
        model(torch.ones(5, 3, dtype=torch.long))
    assert calls.count(place) == 1


@pytest.mark.parametrize("specs", [{"a": "loreft", "b": "invertible"}, {"a": "compacter", "b": "dora"}])
def test_methods_of_other_kinds_take_turns(specs):
    model = adapted(specs)
    ids = torch.arange(3, 15).view(2, 6)
    with llmad.per_row(model, ["a", "b"]):
        together = model(ids).logits
    for row, name in enumerate(specs):
        llmad.activate(model, name)
        torch.testing.assert_close(together[row], model(ids[row : row + 1]).logits[0], rtol=1e-4, atol=1e-5)
