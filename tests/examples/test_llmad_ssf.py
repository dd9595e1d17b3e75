"""The third-party example: installed with pip, listed with its distribution, and trained on every backbone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "llmad-ssf"

TRAIN = """
import torch
import transformers as t
import llmad

small = dict(vocab_size=97)
models = [
    t.LlamaForCausalLM(t.LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                     num_key_value_heads=2, **small)),
    t.BloomForCausalLM(t.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **small)),
    t.OPTForCausalLM(t.OPTConfig(hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2,
                                 num_attention_heads=4, dropout=0.0, **small)),
    t.GPTJForCausalLM(t.GPTJConfig(n_embd=32, n_layer=2, n_head=4, rotary_dim=8, **small)),
]
ids = torch.randint(3, 90, (4, 12), generator=torch.Generator().manual_seed(0))
for model in models:
    model.eval()
    before = model(input_ids=ids).logits
    llmad.attach(model, "ssf")
    assert torch.equal(model(input_ids=ids).logits, before)
    own = dict(llmad.parameters(model))
    adam = torch.optim.AdamW(own.values(), lr=0.05)
    losses = []
    for _ in range(5):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        assert all(bool(p.grad.abs().sum() > 0) for p in own.values())
        adam.step()
        adam.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0], losses
    llmad.detach(model)
    assert torch.equal(model(input_ids=ids).logits, before)
print("trained", len(models))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the example is installed, beside the one that the tests run in."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, str(EXAMPLE)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(target)}


def test_it_is_at_most_sixty_lines() -> None:
    assert len((EXAMPLE / "llmad_ssf.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_it_is_listed_with_its_distribution(environment: dict[str, str]) -> None:
    llmad = str(Path(sys.executable).parent / "llmad")
    printed = subprocess.run([llmad, "list-adapters", "--json"], env=environment, check=True, capture_output=True)
    row = {row["name"]: row for row in json.loads(printed.stdout)}["ssf"]
    assert (row["distribution"], row["version"], row["status"]) == ("llmad-ssf", "0.1.0", "ok")


def test_it_trains_on_every_backbone(environment: dict[str, str]) -> None:
    run = subprocess.run([sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "trained 4\n"
