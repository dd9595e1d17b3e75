"""Memory of a training run, as the plan says it and as it is: lower bound, prediction, upper bound, measured.

    python benchmarks/memory_plan.py
    python benchmarks/memory_plan.py --hidden 512 --layers 8 --length 128 --methods lora

Each line is a fresh process: a LLaMA is made, its adapter attached, the budget planned, and three steps trained.
Measured is what the resident set rises by at its peak, from the loaded model on; the plan's weights and adapter are
left out of its figures here, as they are there before. With MALLOC_MMAP_THRESHOLD_=65536 in the environment the C
library gives freed blocks back at once, and what is measured is what was asked for. A measured value outside of the
bounds ends the benchmark with an error.
"""

import argparse
import json
import subprocess
import sys
import warnings
from itertools import product
from pathlib import Path
from typing import Any

METHODS = ("lora", "series", "ia3", "prompt", "prefix")
MIB = 2**20


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256, help="width of the model")
    parser.add_argument("--layers", type=int, default=4, help="blocks of the model")
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--length", type=int, default=96, help="tokens of the longest row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="*", default=[8, 32], help="rows of a batch")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--one", help="print the figures of one setting, as JSON, and stop")
    told = parser.parse_args()
    if told.one:
        print(json.dumps(figures(told, *told.one.split(","))))
        return
    print("| method | dtype | rows | again | way | lower | predicted | upper | measured | of predicted |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    outside = [setting for setting in settings(told) if not line(setting)]
    if outside:
        sys.exit(f"outside of the bounds: {'; '.join(outside)}")


def settings(told: Any) -> list[str]:
    """Method, dtype, rows of a batch and activation checkpointing, each a text."""
    every = product(told.methods, told.dtypes, map(str, told.rows), ("no", "yes"))
    return [",".join(one) for one in every if not (one[0] == "prefix" and one[3] == "yes")]


def line(setting: str) -> bool:
    """Print a setting's line; whether what was measured is within the bounds."""
    own = sys.argv[1:]
    command = [sys.executable, __file__, *own, "--one", setting]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    sizes = [found[name] / MIB for name in ("lower", "predicted", "upper", "measured")]
    cells = [*setting.split(","), found["way"], *(f"{size:.0f} MiB" for size in sizes), f"{sizes[3] / sizes[1]:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)
    return bool(sizes[0] <= sizes[3] <= sizes[2])


def figures(told: Any, method: str, dtype: str, rows: str, again: str) -> dict[str, Any]:
    """What the plan says beyond the loaded model, and what three steps take."""
    import torch
    from accelerate import Accelerator
    from transformers import LlamaConfig, LlamaForCausalLM

    import llmad
    from llmad import budget, recompute, train
    from llmad.batching import batching
    from llmad.data import Example
    from llmad.recipe import Recipe
    from llmad.schedule import Schedule

    warnings.simplefilter("ignore")
    torch.set_num_threads(told.threads)
    torch.manual_seed(0)
    wide = told.hidden * 8 // 3 // 32 * 32
    sizes = {"hidden_size": told.hidden, "intermediate_size": wide, "num_hidden_layers": told.layers}
    config = LlamaConfig(vocab_size=told.vocabulary, num_attention_heads=told.hidden // 32, **sizes)
    model = llmad.attach(LlamaForCausalLM(config).to(getattr(torch, dtype)), method)
    if again == "yes":
        recompute.enable(model)
    lengths = [told.length - number % 16 for number in range(3 * int(rows))]
    examples = [Example(tuple(range(5, 5 + n)), tuple(place > n // 2 for place in range(n))) for n in lengths]
    asked = {"per_device_train_batch_size": int(rows), "max_steps": 3, "gradient_checkpointing": again == "yes"}
    recipe = Recipe(backbone="none", adapter=method, task="none", **asked)
    schedule, how = Schedule(recipe, tuple(lengths), 1e-3), batching(model, 0, True)
    adam, scaler = train.optimizer(dict(llmad.parameters(model)), recipe), train.loss_scaler(model)
    warm(model, how, examples[:1])
    plan = budget.estimate(model, how, schedule, examples)
    device = Accelerator(cpu=True)
    before = begin()
    for _ in train.fit(model, [train.Trainee(schedule, examples, adam, scaler)], how, device):
        pass
    there = sum(part.bytes for part in plan.parts if part.name in ("weights", "adapter"))
    said = {name: getattr(plan, name) - there for name in ("lower", "predicted", "upper")}
    return {**said, "way": plan.way, "measured": resident("VmHWM") - before}


def warm(model: Any, how: Any, examples: Any) -> None:
    """What the libraries keep for themselves is there before."""
    from llmad.usage import measured

    measured(model, how, examples)


def begin() -> int:
    """Give back what the allocator holds, let the peak start anew, and say what is resident."""
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


def resident(which: str) -> int:
    """A line of the process' status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))


if __name__ == "__main__":
    main()
