"""Time to score an adapter: llmad beside one row at a time, and beside plain batched `generate`.

    python benchmarks/evaluation_speed.py
    python benchmarks/evaluation_speed.py --rows 200 --pairs 7

Adapters for the embedded backbone are trained first, a minute each on two cores. Then, on the same generated problems
and in the same process, answers a second:

original   as the scripts of LLM-Adapters score: one row at a time, beam search of four, no cache
batched    `generate` on rows in the order of the file, padded on the left, greedy, to the end of every text
paper      llmad with the protocol `paper`: the beams of the original, its answers asserted to be the same
strict     llmad's own way, its answers asserted to be those of `batched`

The arms take turns; the table has medians, and the median of the paired ratios with their quartiles. At last three
adapters are scored by one command and by three, whole processes both, with equal files of answers.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

import llmad
from llmad import pretrained, recipe
from llmad.evaluate import score
from llmad.exam import Manner
from llmad.registry import registry
from llmad.run import train_adapter

ADAPTERS = {"lora": "lora", "series": "series", "parallel": "parallel"}
LONGEST, BEAMS, SIZE = 40, 4, 64
TASK = registry().task("arithmetic")
Read = list[str | None]


def main() -> None:
    """Train, measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200, help="problems that are asked")
    parser.add_argument("--pairs", type=int, default=5, help="how often each arm is timed")
    parser.add_argument("--steps", type=int, default=150, help="training steps of an adapter")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs = [train(Path(place) / name, spec, given.steps) for name, spec in ADAPTERS.items()]
        answers_a_second(runs[0], given.rows, given.pairs)
        one_command_or_three(runs, given.rows, given.pairs)


def train(place: Path, spec: str, steps: int) -> Path:
    """A run on the embedded backbone."""
    told = {"backbone": "abacus", "adapter": spec, "task": TASK.name, "max_steps": steps, "output_dir": str(place)}
    train_adapter(recipe.load([("benchmark", told)]), lambda _: None)
    return place


def answers_a_second(run: Path, count: int, pairs: int) -> None:
    """The four arms on one model."""
    base = pretrained.load("abacus")
    llmad.load(base.model, run / "adapter")
    rows = TASK.rows("test", count, 0)
    arms: dict[str, Callable[[], Read]] = {
        "original": lambda: one_by_one(base, rows),
        "batched": lambda: in_batches(base, rows),
        "paper": lambda: ours(base, rows, Manner("paper", LONGEST, BEAMS, stop=False)),
        "strict": lambda: ours(base, rows, Manner("strict", LONGEST)),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    for pair in range(pairs):
        read: dict[str, Read] = {}
        for name in sorted(arms, reverse=bool(pair % 2)):
            began = time.perf_counter()
            read[name] = arms[name]()
            times[name].append(time.perf_counter() - began)
        assert read["original"] == read["paper"], "other answers than the original's"
        assert read["batched"] == read["strict"], "other answers than those of plain generate"
    right = sum(found == row["answer"] for found, row in zip(read["strict"], rows, strict=True))
    print(f"{count} problems, {right} right (strict), {torch.get_num_threads()} threads\n")
    print("| way | answers/s | beside the original | beside batched |\n|---|---|---|---|")
    for name, own in times.items():
        beside = [spread(times[peer], own) for peer in ("original", "batched")]
        print(f"| {name} | {count / median(own):.1f} | {' | '.join(beside)} |")


def one_by_one(base: Any, rows: Sequence[Any]) -> Read:
    """The original's loop."""
    texts = []
    for row in rows:
        asked = base.tokenizer(TASK.prompt.ask(row), return_tensors="pt")
        texts += generate(base, asked, num_beams=BEAMS, use_cache=False)
    return [TASK.judge(row["answer"]).read(text, "paper") for row, text in zip(rows, texts, strict=True)]


def in_batches(base: Any, rows: Sequence[Any]) -> Read:
    """What one writes first: batches in the order of the file."""
    base.tokenizer.padding_side = "left"
    texts = []
    for start in range(0, len(rows), SIZE):
        asked = [TASK.prompt.ask(row) for row in rows[start : start + SIZE]]
        texts += generate(base, base.tokenizer(asked, return_tensors="pt", padding=True))
    return [TASK.judge(row["answer"]).read(text, "strict") for row, text in zip(rows, texts, strict=True)]


@torch.inference_mode()
def generate(base: Any, asked: Any, **how: Any) -> list[str]:
    """The texts that transformers' generate writes."""
    ids = base.model.generate(
        input_ids=asked["input_ids"],
        attention_mask=asked["attention_mask"],
        do_sample=False,
        max_new_tokens=LONGEST,
        eos_token_id=base.tokenizer.eos_token_id,
        pad_token_id=base.tokenizer.pad_token_id,
        **how,
    )
    texts: list[str] = base.tokenizer.batch_decode(ids[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def ours(base: Any, rows: Sequence[Any], manner: Manner) -> Read:
    """llmad's evaluation."""
    _, answers = score(base.model, base.tokenizer, TASK, rows, TASK.prompt, manner, SIZE)
    return [answer.prediction for answer in answers]


def one_command_or_three(runs: Sequence[Path], count: int, pairs: int) -> None:
    """Whole processes: what a user waits for."""
    more = ["--limit", str(count), "--no-base", "--output"]
    times: dict[str, list[float]] = {"one command": [], "three commands": []}
    for pair in range(pairs):
        with tempfile.TemporaryDirectory() as out:
            commands = {
                "one command": [["llmad", "evaluate", *map(str, runs), *more, f"{out}/one"]],
                "three commands": [["llmad", "evaluate", str(run), *more, f"{out}/three/{run.name}"] for run in runs],
            }
            for name in sorted(commands, reverse=bool(pair % 2)):
                began = time.perf_counter()
                for command in commands[name]:
                    subprocess.run(command, check=True, capture_output=True)
                times[name].append(time.perf_counter() - began)
            for run in runs:
                together, alone = (Path(out) / way / run.name / f"{TASK.name}.jsonl" for way in ("one", "three"))
                assert together.read_text() == alone.read_text(), f"other answers of {run.name}"
    print(f"\nThree adapters, {count} problems each:\n\n| way | seconds | ratio |\n|---|---|---|")
    for name, own in times.items():
        print(f"| {name} | {median(own):.1f} | {spread(times['three commands'], own)} |")


def spread(peer: Sequence[float], own: Sequence[float]) -> str:
    """How many times as fast as a peer: the median of the paired ratios, and their quartiles."""
    low, middle, high = quantiles([other / mine for other, mine in zip(peer, own, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
