"""Scoring of trained adapters: directories in, scores and answer files out, on one loaded base."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmad import adapter_dir, pretrained, rows
from llmad.attachment import detach, state
from llmad.columns import Given
from llmad.errors import ModelError
from llmad.evaluate import Answer, Score, score
from llmad.files import check_writable, storing, write_json, write_text
from llmad.memory import enough_memory
from llmad.pretrained import Pretrained
from llmad.quantization import quantization
from llmad.recipe import DeviceMap
from llmad.registry import registry
from llmad.task import Prompt, Row, Task
from llmad.train import accelerator


@dataclass(frozen=True)
class Scoring:
    """Evaluation has come to this answer; `who` is `base` or the adapter."""

    who: str
    task: str
    rows: int
    answer: Answer


Observe = Callable[[Any], None]
SCORES = "scores.json"


@dataclass(frozen=True)
class Questions:
    """What to ask a model, and how."""

    task: Task
    rows: list[Row]
    prompt: Prompt
    protocol: str
    batch_size: int


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_adapters` found: one score a task and adapter."""

    backbone: str
    quantization: str | None
    protocol: str
    scores: list[tuple[str, Score]]

    def describe(self) -> dict[str, Any]:
        """The scores as plain data, for JSON."""
        names = list(dict.fromkeys(name for name, _ in self.scores))
        return {
            "results": [{**result.describe(), "adapter": name} for name, result in self.scores],
            "adapter": names[0] if len(names) == 1 else names,
            "backbone": self.backbone,
            "quantization": self.quantization,
            "protocol": self.protocol,
        }


@enough_memory("lower --batch-size")
def evaluate_adapters(
    folders: Sequence[Path],
    observe: Observe,
    backbone: str | None = None,
    tasks: Sequence[str] = (),
    source: str | None = None,
    protocol: str = "strict",
    limit: int | None = None,
    output: Path | None = None,
    batch_size: int = 64,
    device_map: DeviceMap = None,
    quantize: str | None = None,
    columns: Given | None = None,
) -> Evaluation:
    """Score adapters on tasks, each with the prompt that it was trained with, on one loaded base.

    Args:
        folders: run directories or adapter directories.
        observe: is told of every answer.
        backbone: the base; the one recorded with the adapters where None.
        tasks: names of tasks; the one that the adapter was trained on where empty.
        source: a file of rows, a folder that holds the tasks' files, or a place on the hub.
        protocol: `strict` or `paper`.
        limit: at most so many rows a task.
        output: where answers and scores go, with a folder for each of several adapters; `evaluation` in each run
            directory where None.
        batch_size: rows generated at once.
        device_map: where the base's parts go; all on one device where None.
        quantize: the quantizer of the base's linear maps, or `none`; as recorded with the adapters where None.
        columns: wanted column to the one that the source has instead.

    Raises:
        LlmadError: of every kind.
    """
    adapters = {str(folder): adapter_dir.run_adapter(folder) for folder in folders}
    abouts = {name: adapter_dir.read_about(folder) for name, folder in adapters.items()}
    name = pretrained.one_backbone(backbone, abouts.values())
    how = pretrained.common_quantization(name, abouts.values(), quantize)
    work = {
        who: [
            (task, _rows(task, source, limit, columns), _prompt(about, task, adapters[who]))
            for task in _tasks(tasks, about, who)
        ]
        for who, about in abouts.items()
    }
    places = _places(adapters, output)
    for place in places.values():
        check_writable(place)
    dtype = pretrained.common_dtype(abouts.values())
    base = pretrained.load(name, dtype, accelerator().device, device_map, quantize=how)
    scores: list[tuple[str, Score]] = []
    for who, folder in adapters.items():
        adapter_dir.load(base.model, folder)
        for task, chosen, prompt in work[who]:
            asked = Questions(task, chosen, prompt, protocol, batch_size)
            found = ask(base, asked, who, places[who] / f"{task.name}.jsonl", observe)
            record(places[who] / SCORES, "adapter", protocol, found)
            scores.append((who, found))
        for attached in reversed(list(state(base.model).adapters)):
            detach(base.model, attached)
    return Evaluation(name, quantization(base.model), protocol, scores)


def record(path: Path, who: str, protocol: str, found: Score) -> None:
    """Put a score into the list of a folder's scores, in place of an earlier one of the same kind."""
    entry = {"who": who, "protocol": protocol, **found.describe()}
    kept = json.loads(path.read_text(encoding="utf-8"))["scores"] if path.exists() else []
    same = ("who", "protocol", "task")
    others = [score for score in kept if [score[key] for key in same] != [entry[key] for key in same]]
    write_json(path, {"scores": [*others, entry]})


def ask(base: Pretrained, asked: Questions, who: str, path: Path, observe: Observe) -> Score:
    """Score the model as it stands, and write one JSON line an answer."""
    found, answers = score(
        base.model,
        base.tokenizer,
        asked.task,
        asked.rows,
        asked.prompt,
        asked.protocol,
        asked.batch_size,
        lambda answer: observe(Scoring(who, asked.task.name, len(asked.rows), answer)),
    )
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(answer.describe(), ensure_ascii=False) + "\n" for answer in answers))
    return found


def _run_of(folder: Path) -> Path:
    return folder.parent if folder.name == "adapter" else folder


def _places(adapters: dict[str, Path], output: Path | None) -> dict[str, Path]:
    """Where each adapter's answers go; in one output, several adapters have a folder each."""
    if output is None:
        return {who: _run_of(folder) / "evaluation" for who, folder in adapters.items()}
    if len(adapters) == 1:
        return dict.fromkeys(adapters, output)
    names = [_run_of(folder).resolve().name for folder in adapters.values()]
    alone = [name if names.count(name) == 1 else f"{number}-{name}" for number, name in enumerate(names, 1)]
    return {who: output / name for who, name in zip(adapters, alone, strict=True)}


def _prompt(about: dict[str, Any], task: Task, folder: Path) -> Prompt:
    """The prompt that the adapter was trained with; the task's own where it says none."""
    try:
        return Prompt(**about["prompt"]) if about.get("prompt") else task.prompt
    except TypeError:
        raise ModelError("broken-adapter", f"{folder / adapter_dir.ABOUT}: 'prompt' is no prompt") from None


def _tasks(names: Sequence[str], about: dict[str, Any], who: str) -> list[Task]:
    if not names and "task" not in about:
        raise ModelError("no-task", f"{who} does not say which task it was trained on", "give --task")
    return [registry().task(name) for name in names or [about["task"]]]


def _rows(task: Task, source: str | None, limit: int | None, columns: Given | None) -> list[Row]:
    return rows.rows(task, "test", source, limit or 200, 0, columns).rows[:limit]
