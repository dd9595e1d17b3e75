"""The real thing, small: train on the paper's 3,260 rows and score all six math sets, on five backbones.

    python benchmarks/math_sets.py FOLDER

The backbones are the embedded one and four with random weights (`examples/random_backbones.py`); what they reach says
that the way from real rows to scores is sound, and nothing about the methods.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TASKS = ["addsub", "aqua", "gsm8k", "multiarith", "singleeq", "svamp"]
LLMAD = str(Path(sys.executable).parent / "llmad")


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.json and one folder a set")
    parser.add_argument("--adapter", default="lora[sites=linear]", help="adapter spec")
    parser.add_argument("--limit", type=int, default=10_000, help="rows of each set")
    parser.add_argument("--only", nargs="*", help="names of backbones: abacus, bloom, gptj, llama, opt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).parents[1] / "examples" / "random_backbones.py"
        subprocess.run([sys.executable, str(script), folder], check=True, capture_output=True)
        backbones = ["abacus", *sorted(str(path) for path in Path(folder).iterdir())]
        print(f"| backbone | loss, first to last | {' | '.join(TASKS)} | train s | evaluate s |")
        print("|---" * (len(TASKS) + 4) + "|")
        for backbone in [name for name in backbones if not options.only or Path(name).name in options.only]:
            print(line(backbone, Path(folder) / "runs" / Path(backbone).name, options), flush=True)


def line(backbone: str, output: Path, options: argparse.Namespace) -> str:
    """One row of the table: right answers of all for each set, with those that gave no answer."""
    train = ["train", "--backbone", backbone, "--data", str(options.data / "train.json"), "--output", str(output)]
    train_seconds, _ = timed([*train, "--adapter", options.adapter, "--set", "learning_rate=3e-3"])
    evaluate = ["evaluate", str(output), "--no-base", "--task", ",".join(TASKS), "--data", str(options.data), "--json"]
    seconds, printed = timed([*evaluate, "--limit", str(options.limit), "--batch-size", "128"])
    results = {result["task"]: result for result in json.loads(printed)["results"]}
    metrics: list[dict[str, Any]] = [json.loads(entry) for entry in (output / "metrics.jsonl").read_text().splitlines()]
    losses = f"{metrics[0]['loss']:.2f} to {metrics[-1]['loss']:.2f}"
    found = [results[task] for task in TASKS]
    cells = [f"{result['correct']} of {result['n']} ({result['unparsed']})" for result in found]
    return f"| {Path(backbone).name} | {losses} | {' | '.join(cells)} | {train_seconds:.0f} | {seconds:.0f} |"


def timed(words: list[str]) -> tuple[float, str]:
    """Run a llmad command: its seconds and its output."""
    began = time.perf_counter()
    done = subprocess.run([LLMAD, *words], check=True, capture_output=True, text=True)
    return time.perf_counter() - began, done.stdout


if __name__ == "__main__":
    main()
