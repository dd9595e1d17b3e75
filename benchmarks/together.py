"""Four adapters trained together on one base, and the same four one after another.

    python benchmarks/together.py
    python benchmarks/together.py --tokens 64 --rows 8 --pairs 5

Two threads of the CPU, a LLaMA with random weights, two LoRAs, a series and a parallel adapter, rows of random tokens
of one length. Both arms take the same steps with the same optimizers and seeds; their losses are compared before a
ratio is printed, which is the median of those of neighbouring runs. Memory is the largest resident set of a fresh
process that trains all four or one, less what it has before the model is made.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import llmad
from llmad.batching import batching_together
from llmad.data import Example
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.train import Trainee, accelerator, fit, loss_scaler, optimizer

SPECS = {"a": "lora", "b": "lora[r=16,sites=linear]", "c": "series[bottleneck=32]", "d": "parallel[bottleneck=32]"}
VOCABULARY = 8_000


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64], help="of a row")
    parser.add_argument("--rows", type=int, default=4, help="of each adapter in a step")
    parser.add_argument("--steps", type=int, default=6, help="of each adapter in a run")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each arm")
    parser.add_argument("--hidden", type=int, default=512, help="width of the model")
    parser.add_argument("--layers", type=int, default=8, help="its blocks")
    parser.add_argument("--memory-of", nargs="*", help=argparse.SUPPRESS)
    told = parser.parse_args()
    torch.set_num_threads(2)
    if told.memory_of is not None:
        print(memory(told))
        return
    print("| tokens a row | four runs, s | together, s | four runs / together | quartiles | memory / one run |")
    print("|---|---|---|---|---|---|")
    for tokens in told.tokens:
        print(compare(told, tokens), flush=True)


def compare(told: argparse.Namespace, tokens: int) -> str:
    """One row of the table."""
    model, pairs = make(told), []
    for _ in range(told.pairs):
        alone, first = timed(lambda: [train(model, [name], told, tokens)[name] for name in SPECS])
        together, second = timed(lambda: list(train(model, list(SPECS), told, tokens).values()))
        torch.testing.assert_close(torch.tensor(first), torch.tensor(second), rtol=1e-5, atol=0)
        pairs.append((alone, together))
    ratios = [first / second for first, second in pairs]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    seconds = " | ".join(f"{median(arm):.2f}" for arm in zip(*pairs, strict=True))
    share = rise(told, tokens, list(SPECS)) / median(rise(told, tokens, [name]) for name in SPECS)
    return f"| {tokens} | {seconds} | {median(ratios):.2f} | {low:.2f} to {high:.2f} | {share:.2f} |"


def timed(work: Any) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def make(told: argparse.Namespace) -> Any:
    """A LLaMA with random weights."""
    torch.manual_seed(0)
    width = told.hidden
    sizes = {"hidden_size": width, "intermediate_size": width * 43 // 16, "num_hidden_layers": told.layers}
    return LlamaForCausalLM(
        LlamaConfig(**sizes, num_attention_heads=width // 64, vocab_size=VOCABULARY, pad_token_id=0)
    )


def train(model: Any, names: list[str], told: argparse.Namespace, tokens: int) -> dict[str, list[float]]:
    """Fresh adapters for some steps: the losses of each."""
    for name in names:
        torch.manual_seed(0)
        llmad.attach(model, SPECS[name], name)
    trainees = [trainee(model, name, told, tokens) for name in names]
    how = batching_together(model, names, 0, wanted=True)
    losses: dict[str, list[float]] = {name: [] for name in names}
    for steps in fit(model, trainees, how, accelerator()):
        for name, step in zip(names, steps, strict=True):
            losses[name].append(step.loss)
    for name in names:
        llmad.detach(model, name)
    return losses


def trainee(model: Any, name: str, told: argparse.Namespace, tokens: int) -> Trainee:
    """Rows and an optimizer of its own."""
    recipe = Recipe(
        backbone="b", adapter=SPECS[name], task="t", seed=list(SPECS).index(name), learning_rate=1e-3,
        per_device_train_batch_size=told.rows, max_steps=told.steps,
    )  # fmt: skip
    source = torch.Generator().manual_seed(recipe.seed)
    ids = torch.randint(3, VOCABULARY, (told.rows * told.steps, tokens), generator=source).tolist()
    examples = [Example(tuple(row), tuple(place >= tokens // 2 for place in range(tokens))) for row in ids]
    adam = optimizer(dict(llmad.parameters(model, name)), recipe)
    return Trainee(Schedule(recipe, (tokens,) * len(ids), 1e-3), examples, adam, loss_scaler(model), name=name)


def rise(told: argparse.Namespace, tokens: int, names: list[str]) -> float:
    """MiB that a fresh process needs to train these."""
    words = ["--tokens", str(tokens), "--memory-of", *names]
    sizes = ["--rows", str(told.rows), "--steps", "2", "--hidden", str(told.hidden), "--layers", str(told.layers)]
    done = subprocess.run([sys.executable, __file__, *sizes, *words], check=True, capture_output=True, text=True)
    return float(done.stdout)


def memory(told: argparse.Namespace) -> float:
    """MiB by which the largest resident set rises above what the libraries take."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = resident("VmRSS")
    train(make(told), told.memory_of, told, told.tokens[0])
    return (resident("VmHWM") - before) / 1024


def resident(which: str) -> int:
    """A line of the process' status, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which))


if __name__ == "__main__":
    main()
