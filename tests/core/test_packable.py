"""Whether rows can be packed, by trying it out."""

import pytest
import torch

import llmad
from llmad import packable, packing
from llmad.errors import OutOfMemoryError
from tests.zoo import build


def test_pairs_that_would_be_too_far_away_are_seen():
    model = llmad.attach(build("bloom").eval(), "prefix[num_virtual_tokens=3]")
    assert packable.way(model) is None  # it counts how far a key is away


def test_rows_that_leak_are_seen(monkeypatch):
    model = build("llama")
    assert packable.way(model) == "rows"
    monkeypatch.setitem(packing.AttentionInterface._global_mapping, "llmad_rows", packing.sdpa_attention_forward)
    monkeypatch.setattr(packable, "WAYS", {"rows": "llmad_rows"})
    assert packable.way(model) is None


def test_positions_that_go_on_are_seen(monkeypatch):
    monkeypatch.setattr(packable, "takes_positions", lambda _: False)
    assert packable.way(build("gpt2")) is None


def test_modes_of_training_are_left_as_they_were(llama):
    llama.train()
    llama.model.layers[0].eval()
    before = [part.training for part in llama.modules()]
    packable.way(llama)
    assert [part.training for part in llama.modules()] == before


def test_half_precision_is_packed_too():
    assert packable.way(build("llama").to(torch.bfloat16)) == "rows"


def test_memory_that_runs_out_is_no_reason_to_pad(monkeypatch, llama):
    def full(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(packable, "_logits", full)
    with pytest.raises(OutOfMemoryError) as error:
        packable.way(llama)
    assert (error.value.exit_code, error.value.hint) == (8, "quantise the base, or take a smaller one")
