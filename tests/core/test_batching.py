"""How rows stand in a forward pass: packed where the model keeps them apart, padded elsewhere."""

import pytest

import llmad
from llmad.batching import Batching, batching, batching_together
from llmad.data import Example
from tests.zoo import build

ROWS = [Example((5, 6, 7), (False, True, True)), Example((8, 9), (False, True))]


@pytest.mark.parametrize("kind", ["mamba", "jamba", "rwkv", "recurrent_gemma", "bart"])
def test_a_model_whose_rows_do_not_stay_apart_is_given_padded_ones(kind):
    model = build(kind)
    found = batching(model, 0, wanted=True)
    assert (found.way, found.name) == (None, "padded")
    assert found.told.startswith(f"padded: {type(model).__name__} ")
    batch = found.batch(ROWS)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    with found.within(model, batch):
        assert not str(model.config._attn_implementation).startswith("llmad")


def test_packing_can_be_left_out(llama):
    found = batching(llama, 0, wanted=False)
    assert found == Batching(0)
    assert found.told == "padded: packing=false"


def test_an_adapter_may_be_why_rows_are_padded():
    model = build("bloom")
    assert batching(model, 0, wanted=True).told == "packed (blocks)"
    llmad.attach(model, "prefix[num_virtual_tokens=3]")
    assert batching(model, 0, wanted=True).told.startswith("padded: the adapter ")


def test_the_adapter_that_cannot_be_packed_is_why_all_are_padded():
    model = build("bloom")
    llmad.attach(model, "lora", "a")
    llmad.attach(model, "prefix[num_virtual_tokens=3]", "b")
    found = batching_together(model, ["a", "b"], 0, wanted=True)
    assert (found.way, found.name) == (None, "padded")
    assert found.told.startswith("padded: the adapter ")


def test_packed_rows_are_kept_apart(llama):
    found = batching(llama, 0, wanted=True)
    assert (found.way, found.name) == ("rows", "packed (rows)")
    assert found.told == found.name
    batch = found.batch(ROWS)
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    with found.within(llama, batch):
        assert llama.config._attn_implementation == "llmad_rows"


def test_a_model_that_is_not_told_positions_is_given_none():
    found = batching(build("bloom"), 0, wanted=True)
    assert (found.way, "position_ids" in found.batch(ROWS).inputs) == ("blocks", False)
