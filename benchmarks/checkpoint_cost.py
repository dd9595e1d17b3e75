"""What checkpoints add to a run: one of LoRA's at every linear map, written, read back and compared, in 100 steps.

    python benchmarks/checkpoint_cost.py
    python benchmarks/checkpoint_cost.py --hidden 1024 --layers 24 --saves 9

One thread of the CPU, a LLaMA with random weights. A checkpoint holds the adapter and two moments of it; saving it is
timed with everything that makes it sure: fsync, the read back from the disk, the comparison, the manifest, the rename,
and the deletion of the oldest. The optimizer's step is real; the forward and backward of a run are timed on as many
tokens as it takes for half a second. What is found on the disk is loaded and must be what is in memory, bit for bit.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import llmad
from llmad import checkpoint
from llmad.adapter_copy import copied
from llmad.proof import same
from llmad.record import WEIGHTS

SPEC, EVERY, LEAST = "lora[r=16,alpha=32,sites=linear]", 100, 0.5  # seconds a step
OFF = torch.amp.GradScaler("cpu", enabled=False)


def main() -> None:
    """Measure and print the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=768, help="width of the model")
    parser.add_argument("--layers", type=int, default=16, help="its blocks")
    parser.add_argument("--saves", type=int, default=7, help="how often a checkpoint is timed")
    parser.add_argument("--folder", help="where to write; the system's temporary folder where none is given")
    told = parser.parse_args()
    torch.set_num_threads(1)
    model = make(told.hidden, told.layers)
    adam = torch.optim.AdamW([own for _, own in llmad.parameters(model)], fused=True)
    tokens, step = a_step(model, adam)
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        place = Path(folder)
        plain = median(timed(lambda: unsure(model, adam, place / "plain")) for _ in range(told.saves))
        sure = median(timed(partial(save, model, adam, place / "sure", number)) for number in range(told.saves))
        found = checkpoint.newest(place / "sure")
        assert found is not None
        check(model, adam, found.path)
        size = sum(file.stat().st_size for file in found.path.iterdir()) / 2**20
    count = sum(own.numel() for _, own in llmad.parameters(model))
    print(f"{count:,} trained parameters, {size:.0f} MiB a checkpoint, {step:.2f} s a step of {tokens} tokens")
    print("| | seconds | share of 100 steps |\n|---|---|---|")
    print(f"| files alone, not waited for | {plain:.3f} | {plain / (EVERY * step):.2%} |")
    print(f"| saved, read back, compared | {sure:.3f} | {sure / (EVERY * step):.2%} |")


def make(hidden: int, layers: int) -> nn.Module:
    """A model with its adapter."""
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_attention_heads": hidden // 64}
    base = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, vocab_size=1024, **sizes))
    return llmad.attach(base, SPEC)


def a_step(model: nn.Module, adam: torch.optim.Optimizer) -> tuple[int, float]:
    """Tokens of a step that takes at least half a second, and the seconds that it takes."""
    tokens = 16
    while (seconds := timed(partial(train, model, adam, tokens))) < LEAST:
        tokens *= 2
    return tokens, min(seconds, timed(partial(train, model, adam, tokens)))


def train(model: Any, adam: torch.optim.Optimizer, tokens: int) -> None:
    """One step."""
    ids = torch.randint(0, 1024, (1, tokens))
    model(input_ids=ids, labels=ids).loss.backward()
    adam.step()
    adam.zero_grad()


def save(model: nn.Module, adam: torch.optim.Optimizer, folder: Path, step: int) -> None:
    """As a run saves."""
    checkpoint.taken(step, copied(model), adam, OFF, {"seed": 0}).write(folder, 2)


def unsure(model: nn.Module, adam: torch.optim.Optimizer, folder: Path) -> None:
    """The same tensors in files, with nothing that makes them sure."""
    folder.mkdir(exist_ok=True)
    checkpoint.save_file(dict(copied(model).tensors), folder / WEIGHTS)
    checkpoint.save_file(moments(adam), folder / checkpoint.OPTIMIZER)


def moments(adam: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state, by the place of its parameter."""
    parameters = [own for group in adam.param_groups for own in group["params"]]
    return {f"{place}.{key}": adam.state[own][key] for place, own in enumerate(parameters) for key in adam.state[own]}


def check(model: nn.Module, adam: torch.optim.Optimizer, path: Path) -> None:
    """What lies there is what is held."""
    copied(model).check(path)
    found, held = load_file(path / checkpoint.OPTIMIZER), moments(adam)
    assert found.keys() == held.keys()
    assert all(same(found[name], held[name]) for name in held)


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
