"""Adapters for rows of their own that meet one call of a place together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import llmad
from llmad.activation import taking_turns
from llmad.dice import Dice
from llmad.dropped import draw
from llmad.host import acting_here
from llmad.turns import turns
from llmad_plugins.adapters.lora import LoRALayer
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
    assert groups(model, place, ["a", "b", "a"]) == [[("a",), ("b",)]]  # the rows of a are apart
    assert groups(model, place, [["a", "b"], "c"]) == [[("a",)], [("b",), ("c",)]]  # b sees what a made


def test_the_place_is_asked_once(monkeypatch):
    model, calls = adapted({"a": "lora", "b": "series[sites=attn.q]", "c": "parallel"}), []
    place, real = model.model.layers[0].self_attn.q_proj, torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda own, x: (calls.append(own), real(own, x))[1])
    with llmad.per_row(model, ["a", "a", "b", "c", None]):
        model(torch.ones(5, 3, dtype=torch.long))
    assert calls.count(place) == 1


@pytest.mark.parametrize("rank", [2, 16], ids=["few", "many"])
def test_rows_in_no_order_meet_one_call(monkeypatch, rank):
    """Also in batches of other sizes, and with weights that changed in place."""
    model = adapted({"a": f"lora[r={rank}]", "b": f"lora[r={rank}]"})
    monkeypatch.setattr(LoRALayer, "forward", lambda *_: pytest.fail("called by itself"))
    names = ["b", "a", None, "a", "b"]
    for length in (3, 1, 40):
        ids = torch.randint(3, VOCABULARY, (5, length))
        with llmad.per_row(model, names), torch.no_grad():
            together = model(ids).logits
            for name in "ab":
                with llmad.per_row(model, [name] * 5):
                    alone = model(ids).logits
                for row in (row for row, own in enumerate(names) if own == name):
                    torch.testing.assert_close(together[row], alone[row], rtol=1e-4, atol=1e-5)
        for _, parameter in llmad.parameters(model, "a"):
            parameter.data.mul_(1.1)


@pytest.mark.parametrize("grad", [True, False])
def test_an_adapter_that_is_not_finite_leaves_the_others_alone(grad):
    model = adapted({"a": "lora", "b": "lora"})
    ids = torch.arange(3, 9).view(2, 3)
    with llmad.per_row(model, ["a", None]):
        alone = model(ids).logits
    for _, parameter in llmad.parameters(model, "b"):
        parameter.data.fill_(torch.inf)
    with llmad.per_row(model, ["a", "b"]), torch.set_grad_enabled(grad):
        together = model(ids).logits
    torch.testing.assert_close(together[0], alone[0], rtol=1e-4, atol=1e-5)
    assert not together[1].isfinite().any()


@pytest.mark.parametrize("specs", [{"a": "loreft", "b": "invertible"}, {"a": "compacter", "b": "dora"}])
def test_methods_of_other_kinds_take_turns(specs):
    model = adapted(specs)
    ids = torch.arange(3, 15).view(2, 6)
    with llmad.per_row(model, ["a", "b"]):
        together = model(ids).logits
    for row, name in enumerate(specs):
        llmad.activate(model, name)
        torch.testing.assert_close(together[row], model(ids[row : row + 1]).logits[0], rtol=1e-4, atol=1e-5)


LORAS = {"a": "lora[r=4,dropout=0.3]", "b": "lora[r=8]", "c": "lora[r=2,rslora=true]"}


def train_step(model, names, dice):
    """Logits and gradients."""
    with taking_turns(model, names, dice):
        logits = model(torch.arange(3, 3 + 5 * len(names)).view(len(names), 5)).logits
    logits.sin().sum().backward()
    found = {}
    for name in LORAS:
        for key, parameter in llmad.parameters(model, name):
            found[name, key], parameter.grad = parameter.grad, None
    return logits, found


def test_low_rank_updates_are_computed_at_once(monkeypatch):
    """Values, gradients and dropout are those of each by itself, of several leading sizes, with rows in between."""
    model, calls = adapted(LORAS).double().train(), []
    real = LoRALayer.forward
    monkeypatch.setattr(LoRALayer, "forward", lambda own, *args: (calls.append(own), real(own, *args))[1])
    names = ["a", "a", None, "b", "c"]
    fast = train_step(model, names, dice())
    assert not calls
    monkeypatch.setattr(LoRALayer, "as_low_rank", lambda own: None)
    monkeypatch.setattr(LoRALayer, "forward", lambda own, base, x: plain(own, base, x))
    slow = train_step(model, names, dice())
    torch.testing.assert_close(fast[0], slow[0], rtol=1e-9, atol=1e-10)
    assert fast[1].keys() == slow[1].keys()
    for key, wanted in slow[1].items():
        torch.testing.assert_close(fast[1][key], wanted, rtol=1e-8, atol=1e-9)


def test_dropout_is_drawn_once_for_rows_that_are_apart():
    model, found = adapted({"a": "lora[dropout=0.3]", "b": "lora"}).train(), []
    ids = torch.arange(3, 18).view(3, 5)
    for names, order in ((["a", "b", "a"], [0, 2, 1]), (["a", "a", "b"], [0, 1, 2])):
        with taking_turns(model, names, {"a": Dice(1), "b": Dice(2)}):
            batch = torch.empty_like(ids)
            batch[order] = ids
            found.append(model(batch).logits[order])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def dice():
    return {name: Dice(seed) for seed, name in enumerate(LORAS)}


def plain(layer, base, x):
    """The equation, with a mask of its own."""
    dropped = draw(layer.dropout)(x) if layer.dropout else x
    return base(x) + layer.scale * (dropped @ layer.down.weight.T) @ layer.up.weight.T


def test_a_hook_on_an_adapter_is_called():
    model, seen = adapted(LORAS), []
    layer = model.model.layers[0].self_attn.q_proj.adapters["a"]["attn_q"]
    layer.register_forward_hook(lambda *_: seen.append(1))
    with llmad.per_row(model, ["a", "b"]):
        model(torch.ones(2, 3, dtype=torch.long))
    assert seen == [1]


class Louder(LoRALayer):
    """Does something else, and has inherited what says otherwise."""

    def forward(self, base, x):
        return super().forward(base, x) + 1


def test_a_subclass_with_a_forward_of_its_own_is_called(monkeypatch):
    monkeypatch.setattr("llmad_plugins.adapters.lora.LoRALayer", Louder)
    model = adapted(LORAS)
    ids = torch.arange(3, 15).view(2, 6)
    with llmad.per_row(model, ["a", "b"]):
        together = model(ids).logits
    for row, name in enumerate(["a", "b"]):
        llmad.activate(model, name)
        torch.testing.assert_close(together[row], model(ids[row : row + 1]).logits[0], rtol=1e-4, atol=1e-5)
