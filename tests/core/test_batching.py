"""How rows stand in a forward pass: packed where the model keeps them apart, padded elsewhere."""

import pytest

from llmad.batching import Batching, batching
from llmad.data import Example
from tests.zoo import build

ROWS = [Example((5, 6, 7), (False, True, True)), Example((8, 9), (False, True))]


@pytest.mark.parametrize("kind", ["mamba", "jamba", "rwkv", "recurrent_gemma", "bart"])
def test_a_model_whose_rows_do_not_stay_apart_is_given_padded_ones(kind):
    model = build(kind)
    found = batching(model, 0, wanted=True)
    assert (found.way, found.name) == (None, "padded")
    batch = found.batch(ROWS)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    with found.within(model, batch):
        assert not str(model.config._attn_implementation).startswith("llmad")


def test_packing_can_be_left_out(llama):
    assert batching(llama, 0, wanted=False) == Batching(0)


def test_packed_rows_are_kept_apart(llama):
    found = batching(llama, 0, wanted=True)
    assert (found.way, found.name) == ("rows", "packed (rows)")
    batch = found.batch(ROWS)
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    with found.within(llama, batch):
        assert llama.config._attn_implementation == "llmad_rows"


def test_a_model_that_is_not_told_positions_is_given_none():
    found = batching(build("bloom"), 0, wanted=True)
    assert (found.way, "position_ids" in found.batch(ROWS).inputs) == ("blocks", False)
