"""Memory of a training run, as the plan says it and as it is: lower bound, prediction, upper bound, measured.

    python benchmarks/memory_plan.py
    python benchmarks/memory_plan.py --models abacus --methods lora --dtypes float32

Each line is a process of its own, forked off where nothing but imports has been done: a model is loaded, its adapter
attached, the budget planned, and two steps trained. Measured is what the resident set rises by at its peak, from the
loaded model on; the plan's weights and adapter are left out of its figures here, as they are there before. A measured
value outside of the bounds ends the benchmark with an error. Models are the embedded one and LLaMAs of random weights,
told as width x blocks. A processor without products of 16 bits takes minutes for them, so bfloat16 has shorter rows.

With MALLOC_MMAP_THRESHOLD_=65536 in the environment the C library gives freed blocks back at once: what is measured
then is what was asked for, which the plan heeds.
"""

import argparse
import multiprocessing
import sys
import warnings
from itertools import product
from multiprocessing.connection import Connection
from typing import Any

import resident
import torch
from accelerate import Accelerator
from transformers import LlamaConfig, LlamaForCausalLM

import llmad
from llmad import budget, pretrained, recompute, train
from llmad.batching import Batching, batching
from llmad.data import Example
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.usage import measured

METHODS = ("lora", "series", "parallel", "ia3", "prompt", "prefix")
LENGTHS = {"abacus": (64, 64)}  # of the longest row in float32 and in 16 bits
OTHERS = (16, 8)
STEPS = 2  # the second one finds the optimizer's state there
MIB = 2**20
Setting = tuple[str, str, str, int, str, str]  # model, method, dtype, rows, packed or padded, blocks again or not


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["abacus", "512x8"])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rows", type=int, nargs="*", default=[4, 32], help="rows of a batch")
    parser.add_argument("--vocabulary", type=int, default=32000, help="of a LLaMA")
    parser.add_argument("--length", type=int, help="tokens of the longest row")
    told = parser.parse_args()
    every = settings(told)
    print("| model | method | dtype | rows | stand | again | way | lower | predicted | upper | measured | of it |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    outside = [setting for setting in every if not line(told, setting)]
    print(f"\n{len(every) - len(outside)} of {len(every)} within the bounds")
    if outside:
        sys.exit("\n".join(f"outside of the bounds: {setting}" for setting in outside))


def settings(told: Any) -> list[Setting]:
    """Every combination; what stands before the rows' keys cannot be computed again."""
    every = product(told.models, told.methods, told.dtypes, told.rows, ("packed", "padded"), ("no", "yes"))
    return [one for one in every if not (one[1] == "prefix" and one[5] == "yes")]


def line(told: Any, setting: Setting) -> bool:
    """Print a setting's line; whether what was measured is within the bounds."""
    found = forked(told, setting)
    sizes = [found[name] / MIB for name in ("lower", "predicted", "upper", "measured")]
    cells = [*map(str, setting), found["way"], *(f"{size:.1f} MiB" for size in sizes), f"{sizes[3] / sizes[1]:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)
    return bool(sizes[0] <= sizes[3] <= sizes[2])


def forked(told: Any, setting: Setting) -> dict[str, Any]:
    """The figures of a setting, from a process of its own."""
    there = multiprocessing.get_context("fork")
    here, away = there.Pipe(duplex=False)
    process = there.Process(target=send, args=(away, told, setting))
    process.start()
    away.close()
    try:
        found: dict[str, Any] = here.recv()
    except EOFError:
        sys.exit(f"{setting}: the process has ended")
    process.join()
    return found


def send(pipe: Connection, told: Any, setting: Setting) -> None:
    """The figures of a setting, into a pipe."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pipe.send(figures(told, setting))


def figures(told: Any, setting: Setting) -> dict[str, Any]:
    """What the plan says beyond the loaded model, and what the steps take."""
    name, method, dtype, count, stand, again = setting
    model = llmad.attach(made(name, dtype, told.vocabulary), method)
    if again == "yes":
        recompute.enable(model)
    examples = rows(told.length or LENGTHS.get(name, OTHERS)[dtype != "float32"], STEPS * count)
    asked = {"per_device_train_batch_size": count, "max_steps": STEPS, "gradient_checkpointing": again == "yes"}
    recipe = Recipe(backbone="none", adapter=method, task="none", **asked)
    schedule = Schedule(recipe, tuple(len(row.ids) for row in examples), 1e-3)
    how = batching(model, 0, stand == "packed")
    adam, scaler = train.optimizer(dict(llmad.parameters(model)), recipe), train.loss_scaler(model)
    measured(model, how, examples[:1])  # what the libraries keep for themselves is there before
    plan = budget.estimate(model, how, schedule, examples)
    trainee = train.Trainee(schedule, examples, adam, scaler)
    there = sum(part.bytes for part in plan.parts if part.name in ("weights", "adapter"))
    said = {key: getattr(plan, key) - there for key in ("lower", "predicted", "upper")}
    return {**said, "way": plan.way, "measured": rise(model, trainee, how)}


def made(name: str, dtype: str, vocabulary: int) -> Any:
    """A model on the CPU."""
    if "x" not in name:
        return pretrained.load(name, dtype, torch.device("cpu")).model
    torch.manual_seed(0)
    hidden, layers = map(int, name.split("x"))
    sizes = {"hidden_size": hidden, "intermediate_size": hidden * 8 // 3 // 32 * 32, "num_hidden_layers": layers}
    config = LlamaConfig(vocab_size=vocabulary, num_attention_heads=hidden // 32, **sizes)
    return LlamaForCausalLM(config).to(getattr(torch, dtype))


def rows(longest: int, count: int) -> list[Example]:
    """Rows of several lengths, of which the second half is learnt."""
    lengths = [longest - number % (longest // 3) for number in range(count)]
    return [Example(tuple(range(5, 5 + n)), tuple(place > n // 2 for place in range(n))) for n in lengths]


def rise(model: Any, trainee: train.Trainee, how: Batching) -> int:
    """Bytes that the resident set rises by while the steps are taken."""
    device = Accelerator(cpu=True)
    resident.give_back()
    before = resident.start()
    for _ in train.fit(model, [trainee], how, device):
        pass
    return resident.peak() - before


if __name__ == "__main__":
    main()
