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

METHODS = ["lora", "series", "parallel", "prompt"]


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", default=METHODS, metavar="SPEC", help="adapter specs")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each spec")
    options = parser.parse_args()
    print("| adapter | base | accuracy by seed | mean | seconds |\n|---|---|---|---|---|")
    for spec in options.specs:
        runs = [run(spec, seed) for seed in range(options.seeds)]
        bases, accuracies, seconds = zip(*runs, strict=True)
        shown = ", ".join(f"{accuracy:.1%}" for accuracy in accuracies)
        print(f"| `{spec}` | {max(bases):.1%} | {shown} | {mean(accuracies):.1%} | {max(seconds):.0f} |", flush=True)


def run(spec: str, seed: int) -> tuple[float, float, float]:
    """Accuracy of the base and of the adapter, and the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        command = ["llmad", "train", "--adapter", spec, "--output", str(output), "--set", f"seed={seed}"]
        began = time.perf_counter()
        subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        scores = json.loads((output / "evaluation" / "scores.json").read_text())["scores"]
    accuracy = {score["who"]: score["accuracy"] for score in scores}
    return accuracy["base"], accuracy["adapter"], seconds


if __name__ == "__main__":
    main()
