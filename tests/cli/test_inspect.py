"""`llmad inspect`: the tree, the totals, and JSON."""

import json
import shutil

import pytest


def test_a_model_is_drawn_with_its_roles(llmad):
    done = llmad("inspect", "llama-7b")
    assert done.code == 0, done.err
    assert "0-31  LlamaDecoderLayer  block" in done.out
    assert "attn.q" in done.out
    assert done.out.rstrip().endswith("sites")
    assert "\x1b" not in done.out


def test_a_spec_is_shown_where_it_would_sit(llmad):
    done = llmad("inspect", "llama-7b", "--adapter", "lora[r=8,layers=:2]")
    assert "<- attn.q" in done.out
    assert "4 sites (attn.q x 2, attn.v x 2), 262,144 trained of" in done.out


def test_layers_that_differ_are_drawn_apart(llmad):
    done = llmad("inspect", "llama-7b", "--adapter", "lora[layers=3]")
    for name in ("0-2  ", "3  ", "4-31  "):
        assert f"{name}LlamaDecoderLayer" in done.out


def test_json_for_machines_and_nothing_else(llmad):
    found = json.loads(llmad("inspect", "llama-7b", "--adapter", "lora[r=8,sites=attn.q+attn.v]", "--json").out)
    assert found["trainable_parameters"] == 32 * 2 * 8 * 2 * 4096
    assert len(found["sites"]) == 64
    assert found["adapter"] == "lora"


def test_a_folder_needs_no_weights(llmad, folder, place):
    shutil.copy(f"{folder}/config.json", place)
    assert llmad("inspect", ".").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lama-7b"], "did you mean llama-7b"),
        (["llama-7b", "-a", "lroa"], "did you mean lora"),
        (["llama-7b", "-a", "lora[layers=99]"], "99"),
        (["llama-7b", "-a", "lora[sites=path:nothing]"], "nothing"),
        (["llama-7b", "-a", "prompt[sites=attn.q]"], "attn.q"),
        (["missing/folder/x"], "no local folder"),
        ([], "BACKBONE"),
    ],
)
def test_what_cannot_be_meant_is_refused(refused, words, said):
    assert said.lower() in refused(2, "inspect", *words).lower()


def test_a_folder_that_is_no_model_is_refused(refused, place):
    assert "has no config.json" in refused(2, "inspect", ".")
    (place / "config.json").write_text("{")
    refused(4, "inspect", ".")
