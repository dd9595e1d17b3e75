"""What starting costs: `import llmad` and commands, beside `import peft`, in seconds of the clock and of the processor.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds 9 --only inspect --only peft

Every start is a fresh process, timed from its start to its end. The arms take turns; the first round is not counted,
since it reads the files from the disk and may write bytecode. Shown are the medians, the quartiles of the clock, and
the median of the ratios of processor time to the `import peft` of the same round, which other work on the machine
disturbs least. `modelling` is the import that `llmad inspect` waits for: what inspect takes beyond it is llmad's own.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median, quantiles

PROGRAM = "from llmad_cli.app import main; main()"
PEER = "import peft"
ARMS = {
    "import llmad": ("import llmad",),
    "llmad --help": (PROGRAM, "--help"),
    "llmad list-adapters": (PROGRAM, "list-adapters"),
    "llmad list-backbones": (PROGRAM, "list-backbones"),
    "llmad inspect llama-2-70b": (PROGRAM, "inspect", "llama-2-70b"),
    "llmad inspect llama-2-70b -a lora": (PROGRAM, "inspect", "llama-2-70b", "-a", "lora"),
    "modelling": ("import gc; gc.disable(); import transformers.modeling_utils; gc.freeze()",),
    "import torch": ("import torch",),
    PEER: (PEER,),
}
SAID = {
    "llmad --help": "inspect",
    "llmad list-adapters": "lora",
    "llmad list-backbones": "llama-2-70b",
    "llmad inspect llama-2-70b": "68,976,648,192",
    "llmad inspect llama-2-70b -a lora": "trained of",
}


@dataclass(frozen=True)
class Start:
    """Seconds that a process took, of the clock and of the processor."""

    clock: float
    processor: float


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each arm is timed")
    parser.add_argument("--only", action="append", help="arms that have this in their name")
    told = parser.parse_args()
    arms = [name for name in ARMS if name == PEER or any(part in name for part in told.only or [""])]
    found: dict[str, list[Start]] = {name: [] for name in arms}
    for number in range(told.rounds + 1):
        for name in reversed(arms) if number % 2 else arms:
            found[name].append(start(name))
    print("| start | clock | quartiles | processor | of `import peft` |\n|---|---|---|---|---|")
    for name in arms:
        print(row(name, found[name][1:], found[PEER][1:]))


def start(name: str) -> Start:
    """One start in a process of its own, checked to have done what it is to do; bytecode is kept, as for any user."""
    usual = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", *ARMS[name]],
        capture_output=True,
        text=True,
        check=True,
        env={**usual, "HF_HUB_OFFLINE": "1"},
    )
    clock, after = time.perf_counter() - began, os.times()
    assert SAID.get(name, "") in done.stdout, done.stdout
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Start(clock, used)


def row(name: str, own: list[Start], peers: list[Start]) -> str:
    """A line of the table."""
    clock, processor = [one.clock for one in own], median(one.processor for one in own)
    low, _, high = quantiles(clock, n=4)
    ratio = median(one.processor / peer.processor for one, peer in zip(own, peers, strict=True))
    return f"| `{name}` | {median(clock):.2f} s | {low:.2f} to {high:.2f} s | {processor:.2f} s | {ratio:.2f}x |"


if __name__ == "__main__":
    main()
