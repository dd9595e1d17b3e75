"""Wall time of starting: `import llmad` and three commands, beside `import peft`.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds 9

Every start is a fresh process, timed from its start to its end. The arms take turns; the first round is not counted,
since it reads the files from the disk. Shown are the median, the quartiles, and the median of the ratios to the
`import peft` of the same round.
"""

import argparse
import os
import subprocess
import sys
import time
from statistics import median, quantiles

PROGRAM = "from llmad_cli.app import main; main()"
ARMS = {
    "import llmad": ("import llmad",),
    "llmad --help": (PROGRAM, "--help"),
    "llmad list-adapters": (PROGRAM, "list-adapters"),
    "llmad inspect llama-2-70b": (PROGRAM, "inspect", "llama-2-70b"),
    "import torch": ("import torch",),
    "import peft": ("import peft",),
}
SAID = {"llmad --help": "inspect", "llmad list-adapters": "lora", "llmad inspect llama-2-70b": "68,976,648,192"}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each arm is timed")
    rounds = parser.parse_args().rounds
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    for number in range(rounds + 1):
        for name in sorted(ARMS, reverse=bool(number % 2)):
            found[name].append(seconds(name))
    print("| start | median | quartiles | of `import peft` |\n|---|---|---|---|")
    for name in ARMS:
        print(row(name, found[name][1:], found["import peft"][1:]))


def seconds(name: str) -> float:
    """One start in a process of its own, checked to have done what it is to do."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", *ARMS[name]],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    taken = time.perf_counter() - began
    assert SAID.get(name, "") in done.stdout, done.stdout
    return taken


def row(name: str, own: list[float], peers: list[float]) -> str:
    """A line of the table."""
    low, _, high = quantiles(own, n=4)
    ratio = median(one / peer for one, peer in zip(own, peers, strict=True))
    return f"| `{name}` | {median(own):.2f} s | {low:.2f} to {high:.2f} s | {ratio:.2f}x |"


if __name__ == "__main__":
    main()
