"""Memory of a training run, as the plan says it and as it is: lower bound, prediction, upper bound, measured.

    python benchmarks/memory_plan.py --hold-out         # other models than those that the bounds were set by
    python benchmarks/memory_plan.py                    # the matrix; takes hours where there are no products of 16 bits
    python benchmarks/memory_plan.py --models abacus --methods lora --dtypes float32

Each line is a process of its own, forked off where nothing but imports has been done: a model is loaded, its adapter
attached, the budget planned, and the steps trained. Measured is what the resident set rises by at its peak, from the
loaded model on; the plan's weights and adapter are left out of its figures here, as they are there before. A measured
value outside of the bounds ends the benchmark with an error. Models are the embedded one and others of random weights,
told as family:width x blocks x vocabulary; `again` says whether blocks are computed again.

With MALLOC_MMAP_THRESHOLD_=65536 in the environment the C library gives freed blocks back at once: what is measured
then is what was asked for, which the plan heeds.
"""

import argparse
import multiprocessing
import statistics
import sys
from itertools import product
from multiprocessing.connection import Connection
from typing import Any

from plan_cell import HOLD_OUT, Cell, figures

METHODS = ("lora", "series", "parallel", "ia3", "prompt", "prefix")
LENGTHS = {"abacus": (64, 64)}  # of the longest row in float32 and in 16 bits
OTHERS = (16, 8)
MIB = 2**20


def main() -> None:
    """Measure, and print the table and its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hold-out", action="store_true", help="the models that the bounds were not set by")
    parser.add_argument("--models", nargs="*", default=["abacus", "llama:512x8x32000"])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rows", type=int, nargs="*", default=[4, 32], help="rows of a batch")
    parser.add_argument("--length", type=int, help="tokens of the longest row")
    told = parser.parse_args()
    print(
        "| model | method | base | rows | stand | again | also | way | lower | predicted | upper | measured | of it |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    found = {cell: line(cell) for cell in (HOLD_OUT if told.hold_out else matrix(told))}
    sys.exit(summary(found))


def matrix(told: argparse.Namespace) -> list[Cell]:
    """Every combination; what stands before the rows' keys cannot be computed again."""
    every = product(told.models, told.methods, told.dtypes, told.rows, ("packed", "padded"), ("no", "yes"))
    return [
        Cell(model, method, dtype, "no", rows, _length(told, model, dtype), stand, again)
        for model, method, dtype, rows, stand, again in every
        if not (method == "prefix" and again == "yes")
    ]


def _length(told: argparse.Namespace, model: str, dtype: str) -> int:
    return int(told.length or LENGTHS.get(model, OTHERS)[dtype != "float32"])


def line(cell: Cell) -> dict[str, Any]:
    """Print a cell's line; its figures."""
    found = forked(cell)
    sizes = [f"{found[name] / MIB:.1f} MiB" for name in ("lower", "predicted", "upper", "measured")]
    share = f"{found['measured'] / found['predicted']:.2f}"
    print(f"| {' | '.join([cell.told, found['way'], *sizes, share])} |", flush=True)
    return found


def summary(found: dict[Cell, dict[str, Any]]) -> str | None:
    """Print the summary; what was outside, for an error, if anything was."""
    below = [cell for cell, own in found.items() if own["measured"] < own["lower"]]
    above = [cell for cell, own in found.items() if own["measured"] > own["upper"]]
    within = len(found) - len(below) - len(above)
    width = statistics.median(own["upper"] / own["lower"] for own in found.values())
    above_it = statistics.median(own["upper"] / own["measured"] for own in found.values())
    print(f"\n{len(found)} cells: {within} within the bounds, {len(below)} below, {len(above)} above; in the median")
    print(f"upper / lower {width:.2f}, upper / measured {above_it:.2f}")
    lines = [f"{name} the bounds: {cell}" for name, own in (("below", below), ("above", above)) for cell in own]
    return "\n".join(lines) or None


def forked(cell: Cell) -> dict[str, Any]:
    """The figures of a cell, from a process of its own."""
    there = multiprocessing.get_context("fork")
    here, away = there.Pipe(duplex=False)
    process = there.Process(target=send, args=(away, cell))
    process.start()
    away.close()
    try:
        found: dict[str, Any] = here.recv()
    except EOFError:
        sys.exit(f"{cell}: the process has ended")
    process.join()
    return found


def send(pipe: Connection, cell: Cell) -> None:
    """The figures of a cell, into a pipe."""
    pipe.send(figures(cell))


if __name__ == "__main__":
    main()
