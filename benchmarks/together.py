"""Four adapters trained together on one base, beside four runs one after another, of llmad and of PEFT.

    python benchmarks/together.py
    python benchmarks/together.py --tokens 64 --rows 4 --ranks 4 8 16 32

A LLaMA with random weights, LoRAs of rank 8 at every linear map, rows of random tokens
of one length. All arms take the same steps on the same rows; what is timed are the steps alone. Losses are compared
before a ratio is printed: together and alone at every step, PEFT's at the first. Ratios are the medians of those of
neighbouring runs. Memory is the largest resident set of a fresh process that trains all four or one, less what it has
before the model is made.
"""

import argparse
import subprocess
import sys
import time
import warnings
from statistics import median, quantiles
from typing import Any

import peft
import resident
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import llmad
from llmad.batching import batching_together
from llmad.data import Example, padded
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.train import Trainee, accelerator, fit, loss_scaler, optimizer

RANKS = {"a": 8, "b": 8, "c": 8, "d": 8}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCABULARY = 8_000


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64], help="of a row")
    parser.add_argument("--rows", type=int, default=1, help="of each adapter in a step")
    parser.add_argument("--steps", type=int, default=6, help="of each adapter in a run")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each arm")
    parser.add_argument("--hidden", type=int, default=512, help="width of the model")
    parser.add_argument("--layers", type=int, default=8, help="its blocks")
    parser.add_argument("--ranks", type=int, nargs=4, default=list(RANKS.values()), help="of the adapters")
    parser.add_argument("--memory-of", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    told = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(told.threads)
    RANKS.update(zip(RANKS, told.ranks, strict=True))
    if told.memory_of is not None:
        print(memory(told))
        return
    print("| tokens a row | PEFT, s | llmad, s | together, s | PEFT / together | llmad / together | memory / one run |")
    print("|---|---|---|---|---|---|---|")
    for tokens in told.tokens:
        print(compare(told, tokens), flush=True)


def compare(told: argparse.Namespace, tokens: int) -> str:
    """One row of the table."""
    model, peers, turns = make(told), {name: by_peft(told, name) for name in RANKS}, []
    for _ in range(told.pairs):
        theirs = [train_peer(peers[name], name, told, tokens) for name in RANKS]
        alone = [train(model, [name], told, tokens) for name in RANKS]
        seconds, losses = train(model, list(RANKS), told, tokens)
        own = [found[name] for (_, found), name in zip(alone, RANKS, strict=True)]
        torch.testing.assert_close(torch.tensor(list(losses.values())), torch.tensor(own), rtol=1e-5, atol=0)
        if not turns:
            first = torch.tensor([found[0] for found in losses.values()])
            torch.testing.assert_close(torch.tensor([loss for _, loss in theirs]), first, rtol=1e-5, atol=0)
        turns.append((sum(one for one, _ in theirs), sum(one for one, _ in alone), seconds))
    seconds_of = " | ".join(f"{median(arm):.2f}" for arm in zip(*turns, strict=True))
    ratios = " | ".join(spread([turn[arm] / turn[2] for turn in turns]) for arm in (0, 1))
    share = rise(told, tokens, list(RANKS)) / median(rise(told, tokens, [name]) for name in RANKS)
    return f"| {tokens} | {seconds_of} | {ratios} | {share:.2f} |"


def spec(name: str) -> str:
    """Of an adapter."""
    return f"lora[r={RANKS[name]},alpha=16,sites=linear]"


def spread(ratios: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def by_peft(told: argparse.Namespace, name: str) -> tuple[Any, torch.optim.Optimizer]:
    """PEFT's model of one adapter, and its optimizer."""
    config = peft.LoraConfig(r=RANKS[name], lora_alpha=16, target_modules=LINEAR, task_type="CAUSAL_LM")
    model = peft.get_peft_model(make(told), config).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(trained, lr=1e-3)


def train_peer(made: tuple[Any, torch.optim.Optimizer], name: str, told: Any, tokens: int) -> tuple[float, float]:
    """The seconds of the steps, and the first loss."""
    (model, adam), examples, losses = made, rows(told, name, tokens), []
    began = time.perf_counter()
    for step, numbers in schedule(told, name, tokens).walk(0):
        batch = padded([examples[number] for number in numbers[0]], 0)
        loss = model(**batch.inputs, labels=batch.labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([own for group in adam.param_groups for own in group["params"]], 1.0)
        adam.step()
        adam.zero_grad()
        losses.append(float(loss.detach()))
        assert step <= told.steps
    return time.perf_counter() - began, losses[0]


def make(told: argparse.Namespace) -> Any:
    """A LLaMA with random weights."""
    torch.manual_seed(0)
    width = told.hidden
    sizes = {"hidden_size": width, "intermediate_size": width * 43 // 16, "num_hidden_layers": told.layers}
    return LlamaForCausalLM(
        LlamaConfig(**sizes, num_attention_heads=width // 64, vocab_size=VOCABULARY, pad_token_id=0)
    )


def train(model: Any, names: list[str], told: argparse.Namespace, tokens: int) -> tuple[float, dict[str, list[float]]]:
    """Fresh adapters for some steps: their seconds, and the losses of each."""
    for name in names:
        torch.manual_seed(0)
        llmad.attach(model, spec(name), name)
    trainees = [trainee(model, name, told, tokens) for name in names]
    how = batching_together(model, names, 0, wanted=True)
    losses: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for steps in fit(model, trainees, how, accelerator()):
        for name, step in zip(names, steps, strict=True):
            losses[name].append(step.done().loss)
    seconds = time.perf_counter() - began
    for name in names:
        llmad.detach(model, name)
    return seconds, losses


def trainee(model: Any, name: str, told: argparse.Namespace, tokens: int) -> Trainee:
    """An adapter with its rows and an optimizer."""
    plan = schedule(told, name, tokens)
    adam = optimizer(dict(llmad.parameters(model, name)), plan.recipe)
    return Trainee(plan, rows(told, name, tokens), adam, loss_scaler(model), name=name)


def schedule(told: argparse.Namespace, name: str, tokens: int) -> Schedule:
    """Steps of its own."""
    recipe = Recipe(
        backbone="b", adapter=spec(name), task="t", seed=list(RANKS).index(name), learning_rate=1e-3, warmup_ratio=0,
        per_device_train_batch_size=told.rows, max_steps=told.steps,
    )  # fmt: skip
    return Schedule(recipe, (tokens,) * told.rows * told.steps, 1e-3)


def rows(told: argparse.Namespace, name: str, tokens: int) -> list[Example]:
    """Random ones of its own, of which the second half is learnt."""
    source = torch.Generator().manual_seed(list(RANKS).index(name))
    ids = torch.randint(3, VOCABULARY, (told.rows * told.steps, tokens), generator=source).tolist()
    return [Example(tuple(row), tuple(place >= tokens // 2 for place in range(tokens))) for row in ids]


def rise(told: argparse.Namespace, tokens: int, names: list[str]) -> float:
    """MiB that a fresh process needs to train these."""
    words = ["--tokens", str(tokens), "--ranks", *map(str, RANKS.values()), "--memory-of", *names]
    sizes = ["--rows", str(told.rows), "--steps", "2", "--hidden", str(told.hidden), "--layers", str(told.layers)]
    done = subprocess.run([sys.executable, __file__, *sizes, *words], check=True, capture_output=True, text=True)
    return float(done.stdout)


def memory(told: argparse.Namespace) -> float:
    """MiB by which the largest resident set rises above what the libraries take."""
    before = resident.start()
    train(make(told), told.memory_of, told, told.tokens[0])
    return (resident.peak() - before) / 2**20


if __name__ == "__main__":
    main()
