"""The embedded backbone: whole, small, loads in silence, and solves what its card says."""

import json
import random
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from llmad import pretrained
from llmad.source import find

FOLDER = find("abacus")


@pytest.fixture(scope="module")
def abacus():
    return pretrained.load("abacus")


def test_the_files_are_those_of_the_record():
    sums = json.loads((FOLDER / "pretraining.json").read_text())["sha256"]
    for name in ("model.safetensors", "tokenizer.json"):
        assert sha256((FOLDER / name).read_bytes()).hexdigest() == sums[name]


def test_it_is_at_most_twelve_megabytes():
    assert sum(path.stat().st_size for path in Path(FOLDER).iterdir()) <= 12_000_000


def test_it_has_one_to_five_million_parameters(abacus):
    assert 1_000_000 <= abacus.model.num_parameters() <= 5_000_000


def test_every_digit_is_a_token(abacus):
    ids = abacus.tokenizer("1234567890", add_special_tokens=False)["input_ids"]
    assert abacus.tokenizer.convert_ids_to_tokens(ids) == list("1234567890")


def test_any_text_survives_the_tokenizer(abacus):
    text = "Ünïcode \N{GRINNING FACE}\n\ttabs and 3.14"
    ids = abacus.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert abacus.tokenizer.decode(ids) == text


def test_special_tokens_are_distinct_and_agree(abacus):
    tokenizer, config = abacus.tokenizer, GenerationConfig.from_pretrained(FOLDER)
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
    assert config.eos_token_id == tokenizer.eos_token_id


@torch.inference_mode()
def test_it_solves_bare_equations(abacus):
    """At least 95 % of equations drawn at random from its range, written as in its corpus, one a line."""
    draw = random.Random(0)
    limit = json.loads((FOLDER / "pretraining.json").read_text())["numbers"][1]
    right = 0
    for _ in range(120):
        a = draw.randint(4, limit - 2)
        b = draw.randint(2, a - 2)
        left, result = draw.choice([(f"{a} - {b} =", a - b), (f"{b} + {a - b} =", a)])
        ids = abacus.tokenizer(left, return_tensors="pt")
        written = abacus.model.generate(**ids, max_new_tokens=5, do_sample=False)[0, ids["input_ids"].shape[1] :]
        right += abacus.tokenizer.decode(written).strip().startswith(f"{result}.")
    assert right >= 0.95 * 120
