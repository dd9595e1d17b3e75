"""What `llmad train` gives on the embedded backbone: accuracy of base and adapter, and wall time, over seeds.

    python benchmarks/first_run.py                       # every built-in method, three seeds
    python benchmarks/first_run.py lora 'lora[r=16]' --seeds 5

Every run is a fresh process, timed from the command to the prompt; imports, both evaluations and files included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

PROGRAM = Path(sys.executable).parent / "llmad"


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", metavar="SPEC", help="adapter specs")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each spec")
    options = parser.parse_args()
    print("| adapter | parameters | base | accuracy by seed | mean | seconds |\n|---|---|---|---|---|---|")
    for spec in options.specs or methods():
        runs = [run(spec, seed) for seed in range(options.seeds)]
        bases, accuracies, seconds = zip(*runs, strict=True)
        shown = ", ".join(f"{accuracy:.1%}" for accuracy in accuracies)
        cells = [f"`{spec}`", f"{parameters(spec):,}", f"{max(bases):.1%}", shown, f"{mean(accuracies):.1%}"]
        print(f"| {' | '.join(cells)} | {max(seconds):.0f} |", flush=True)


def methods() -> list[str]:
    """Every built-in method that can be trained alone."""
    rows = json.loads(subprocess.run([PROGRAM, "list-adapters", "--json"], check=True, capture_output=True).stdout)
    names = [row["name"] for row in rows if row["distribution"] == "llmad" and not row["preset"]]
    return [name for name in names if name != "fusion"]  # which needs adapters to fuse


def parameters(spec: str) -> int:
    """How many are trained."""
    command = [PROGRAM, "inspect", "abacus", "--adapter", spec, "--json"]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["trainable_parameters"])


def run(spec: str, seed: int) -> tuple[float, float, float]:
    """Accuracy of the base and of the adapter, and the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        command = [PROGRAM, "train", "--adapter", spec, "--output", str(output), "--set", f"seed={seed}"]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        scores = json.loads((output / "evaluation" / "scores.json").read_text())["scores"]
    accuracy = {score["who"]: score["accuracy"] for score in scores}
    return accuracy["base"], accuracy["adapter"], seconds


if __name__ == "__main__":
    main()
