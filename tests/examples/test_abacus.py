"""The scripts behind the embedded backbone: the corpus is a function of the seed, and solves no word problem."""

import json
import re
import subprocess
import sys
from hashlib import sha256
from importlib import import_module
from itertools import islice
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "examples" / "abacus"
SHIPPED = Path(__file__).parents[2] / "plugins" / "llmad_plugins" / "data" / "abacus"
EQUATION = re.compile(r"(\d+) [-+*/] (\d+) = (\d+)")


@pytest.fixture
def documents(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return import_module("corpus").documents


def test_the_corpus_is_that_of_the_record(documents):
    """Written by this code on any machine: the first MiB has the recorded SHA-256."""
    recorded = json.loads((SHIPPED / "pretraining.json").read_text())
    text = "\n\n".join(islice(documents(recorded["seed"]), 20_000)).encode()
    sums = recorded["sha256"]
    name = next(name for name in sums if "corpus" in name)
    assert len(text) > 2**20
    assert sha256(text[: 2**20]).hexdigest() == sums[name]


def test_no_equation_stands_beside_a_story_of_its_numbers(documents):
    for text in islice(documents(1), 5_000):
        story = " ".join(line for line in text.splitlines() if not EQUATION.search(line))
        told = set(re.findall(r"\d+", story))
        for a, b, _ in EQUATION.findall(text):
            assert not {a, b} <= told or not re.search(r"[A-Z][a-z]+ (has|had|found|bought)", story), text


def test_no_question_is_answered(documents):
    for text in islice(documents(2), 5_000):
        if "Question:" in text:
            assert "=" not in text
            assert "The answer is" not in text


@pytest.mark.slow
def test_pretraining_runs_from_nothing(tmp_path):
    command = [sys.executable, str(SCRIPTS / "pretrain.py"), "--output", str(tmp_path / "out"), "--steps", "2"]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "out" / "model.safetensors").is_file()
