"""Time of a training step with LoRA: llmad beside PEFT, and beside the frozen model alone.

    python benchmarks/step_time.py
    python benchmarks/step_time.py --hidden 512 --layers 4 --pairs 9

Forward, backward and optimizer of a LLaMA with LoRA of rank 8 on q, k, v, up and down, on the same weights and the same
batch: in float32 without dropout, and in bfloat16 with a dropout of 0.05, adapters in float32. `frozen` is the model
without adapters, forward and back to the outputs of the lowest adapted places: what no adapter can do without.
Before anything is timed the two adapters are given the same values, and have the same loss and gradients.

The arms take turns; the table has medians, and the median of the paired ratios with their quartiles.
"""

import argparse
import time
import warnings
from statistics import median, quantiles

import torch
from step_arms import Arm, Shape, arms, batch

SETTINGS = {"float32": (torch.float32, 0.0), "bfloat16, dropout 0.05": (torch.bfloat16, 0.05)}


def main() -> None:
    """Measure, and print one table a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=768, help="width of the model")
    parser.add_argument("--layers", type=int, default=4, help="blocks of the model")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of a batch of four rows")
    parser.add_argument("--pairs", type=int, default=7, help="how often each arm is timed")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    inner = given.hidden * 8 // 3 // 32 * 32
    shape = Shape(given.hidden, inner, given.layers, length=given.tokens // 4)
    print(f"{shape}, {given.threads} threads")
    for name, (dtype, dropout) in SETTINGS.items():
        report(name, times(arms(shape, dtype, dropout), shape, given.pairs))


def times(made: dict[str, Arm], shape: Shape, pairs: int) -> dict[str, list[float]]:
    """Seconds of each step of each arm."""
    ids, found = batch(shape), {name: list[float]() for name in made}
    for one in made.values():
        one.step(ids)
    for pair in range(pairs):
        for name in sorted(made, reverse=bool(pair % 2)):
            began = time.perf_counter()
            made[name].step(ids)
            found[name].append(time.perf_counter() - began)
    return found


def report(name: str, found: dict[str, list[float]]) -> None:
    """One table."""
    print(f"\n| {name} | seconds | beside PEFT | beside frozen |\n|---|---|---|---|")
    for arm, own in found.items():
        beside = [spread(own, found[peer]) for peer in ("PEFT", "frozen")]
        print(f"| {arm} | {median(own):.3f} | {' | '.join(beside)} |", flush=True)


def spread(own: list[float], other: list[float]) -> str:
    """The median of the paired ratios and their quartiles."""
    low, middle, high = quantiles([mine / theirs for mine, theirs in zip(own, other, strict=True)], n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
