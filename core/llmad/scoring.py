"""Scoring of trained adapters: directories in, scores and answer files out, on one loaded base."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from llmad import adapter_dir, pretrained, prompting, rows
from llmad.activation import per_row
from llmad.asking import Result, Sheet, ask, check_changes, digest
from llmad.attachment import detach, state
from llmad.errors import LlmadWarning, ModelError, UsageError
from llmad.evaluate import check_answers
from llmad.exam import Exam, manner
from llmad.files import check_writable
from llmad.fingerprint import fingerprint
from llmad.leaks import Leak
from llmad.memory import enough_memory
from llmad.pretrained import Pretrained
from llmad.prompt import Prompt, Row
from llmad.quantization import quantization
from llmad.registry import registry
from llmad.task import Task
from llmad.train import accelerator

_GENERATED = 200  # rows of a task that makes its own


@dataclass(frozen=True)
class Candidate:
    """An adapter that is to be scored.

    Attributes:
        label: the directory as it was given.
        folder: the adapter's directory.
        about: what its `llmad.json` says.
        prompt: the one that it was trained with; None where its directory does not say.
        tasks: what it is asked.
        place: where its answers go.
    """

    label: str
    folder: Path
    about: dict[str, Any]
    prompt: Prompt | None
    tasks: tuple[Task, ...]
    place: Path

    @cached_property
    def hash(self) -> str:
        """Of its files; read once for all tasks."""
        return adapter_hash(self.folder)

    @property
    def alone(self) -> bool:
        """Whether it brings adapters of its own, under names that may be taken."""
        return bool(self.about.get("built_on"))


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_adapters` found: one result a task and model, the adapters' first."""

    backbone: str
    quantization: str | None
    protocol: str
    results: list[Result]

    def describe(self) -> dict[str, Any]:
        """The scores as plain data, for JSON."""
        names = list(dict.fromkeys(result.sheet.label for result in self.results if result.sheet.who))
        return {
            "results": [{"adapter": result.sheet.label, **result.describe()} for result in self.results],
            "adapter": names[0] if len(names) == 1 else names,
            "backbone": self.backbone,
            "quantization": self.quantization,
            "protocol": self.protocol,
        }


@enough_memory("lower --batch-size")
def evaluate_adapters(folders: Sequence[Path], exam: Exam, observe: Callable[[Any], None]) -> Evaluation:
    """Score adapters on tasks, each with the prompt that it was trained with, on one loaded base, and the base too.

    Args:
        folders: run directories or adapter directories.
        exam: what to ask, and how.
        observe: is told of every answer.

    Raises:
        LlmadError: of every kind; what is wrong with directories and rows is told before the base is loaded.
    """
    candidates = _candidates(folders, exam)
    chosen = _chosen(candidates, exam)
    abouts = [candidate.about for candidate in candidates]
    name = pretrained.one_backbone(exam.backbone, abouts)
    dtype = exam.dtype or pretrained.common_dtype(abouts)
    how = pretrained.common_quantization(name, abouts, exam.quantize)
    base = pretrained.load(name, dtype, accelerator().device, exam.device_map, quantize=how)
    results = _score(base, candidates, chosen, exam, observe)
    return Evaluation(name, quantization(base.model), exam.protocol, results)


def score_on(base: Pretrained, folders: Sequence[Path], exam: Exam, observe: Callable[[Any], None]) -> list[Result]:
    """As `evaluate_adapters`, on a base that is loaded and has no adapters.

    Raises:
        LlmadError: of every kind.
    """
    candidates = _candidates(folders, exam)
    return _score(base, candidates, _chosen(candidates, exam), exam, observe)


def _chosen(candidates: Sequence[Candidate], exam: Exam) -> dict[str, list[Row]]:
    """The rows of every task that is asked; there must be room for the answers, too."""
    chosen = {task.name: _rows(task, exam) for candidate in candidates for task in candidate.tasks}
    for candidate in candidates:
        check_writable(candidate.place)
    return chosen


def _score(
    base: Pretrained,
    candidates: Sequence[Candidate],
    chosen: Mapping[str, list[Row]],
    exam: Exam,
    observe: Callable[[Any], None],
) -> list[Result]:
    of_base = digest(fingerprint(base.model))
    results: list[Result] = []
    missing = _base_sheets(base, candidates, chosen, exam, of_base) if exam.base else []
    for group in _groups(candidates):
        with _attached(base, group) as names:
            sheets = [
                _sheet(base, candidate, who, task, chosen[task.name], exam, of_base)
                for candidate, who in zip(group, names, strict=True)
                for task in candidate.tasks
            ]
            for sheet in {sheet.who: sheet for sheet in sheets}.values():
                check_changes(base, sheet)
            results += ask(base, [*missing, *sheets], exam.batch_size, observe, _mixable(base, names))
            missing = []
    results.sort(key=lambda result: not result.sheet.who)
    return results


def adapter_hash(folder: Path) -> str:
    """A short sum of an adapter directory's config and weights."""
    files = (folder / name for name in (adapter_dir.CONFIG, adapter_dir.WEIGHTS))
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files if file.is_file())).hexdigest()[:16]


def _candidates(folders: Sequence[Path], exam: Exam) -> list[Candidate]:
    adapters = {str(folder): adapter_dir.run_adapter(folder) for folder in folders}
    places = _places(adapters, Path(exam.output) if exam.output else None)
    return [_candidate(label, folder, places[label], exam) for label, folder in adapters.items()]


def _candidate(label: str, folder: Path, place: Path, exam: Exam) -> Candidate:
    about = adapter_dir.read_about(folder)
    own = None if exam.prompt else prompting.recorded(about, folder / adapter_dir.ABOUT)
    if own is None and exam.prompt is None:
        reason = f"{label} does not say which prompt it was trained with; it is asked with the task's"
        warnings.warn(reason, LlmadWarning, stacklevel=2)
    tasks = _tasks(exam, about, label)
    for task in tasks:
        _say_leak(label, about, task)
    return Candidate(label, folder, about, own, tasks, place)


def _say_leak(label: str, about: dict[str, Any], task: Task) -> None:
    """Say again what training has said of the rows that are asked now."""
    for known in (about.get("checks") or {}).get("leaks", ()):
        if known["task"] == task.name and known["exact"]:
            warnings.warn(f"{label}, as it was trained: {Leak(**known)}", LlmadWarning, stacklevel=2)


def _groups(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Adapters that are attached at the same time: all but those that bring their own."""
    together = [candidate for candidate in candidates if not candidate.alone]
    return [*([together] if together else []), *([candidate] for candidate in candidates if candidate.alone)]


@contextmanager
def _attached(base: Pretrained, group: Sequence[Candidate]) -> Iterator[list[tuple[str, ...]]]:
    """The group's adapters on the base; yields the stack of each."""
    names: list[tuple[str, ...]] = []
    try:
        for number, candidate in enumerate(group):
            before = list(state(base.model).adapters)
            adapter_dir.load(base.model, candidate.folder, f"adapter-{number}")
            names.append(_acting(base, before))
        yield names
    finally:
        for attached in reversed(list(state(base.model).adapters)):
            detach(base.model, attached)


def _acting(base: Pretrained, before: Sequence[str]) -> tuple[str, ...]:
    """The stack that loading made active, without those that another loading did."""
    stages = state(base.model).active
    return tuple("+".join(stage.names) for stage in stages if not set(stage.names) & set(before))


def _mixable(base: Pretrained, names: Sequence[tuple[str, ...]]) -> bool:
    """Whether rows of one batch may have different adapters."""
    try:
        per_row(base.model, [(), *names])
    except UsageError:
        return False
    return True


def _sheet(
    base: Pretrained, candidate: Candidate, who: tuple[str, ...], task: Task, chosen: list[Row], exam: Exam, of: str
) -> Sheet:
    prompt = _prompt(candidate, task, exam, base.tokenizer)
    hashes = {"base": of, "adapter": candidate.hash, "data": rows.fingerprint(chosen)}
    return Sheet(who, candidate.label, task, chosen, prompt, manner(exam, task), (candidate.place,), hashes)


def _base_sheets(
    base: Pretrained, candidates: Sequence[Candidate], chosen: Mapping[str, list[Row]], exam: Exam, of: str
) -> list[Sheet]:
    """What the base is asked: each task once for each prompt of an adapter."""
    places: dict[tuple[str, str], tuple[Task, Prompt, list[Path]]] = {}
    for candidate in candidates:
        for task in candidate.tasks:
            prompt = _prompt(candidate, task, exam, base.tokenizer)
            places.setdefault((task.name, prompt.fingerprint()), (task, prompt, []))[2].append(candidate.place)
    return [
        Sheet(
            who=(),
            label="base",
            task=task,
            rows=chosen[task.name],
            prompt=prompt,
            manner=manner(exam, task),
            places=tuple(dict.fromkeys(folders)),
            hashes={"base": of, "adapter": None, "data": rows.fingerprint(chosen[task.name])},
        )
        for task, prompt, folders in places.values()
    ]


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


def _prompt(candidate: Candidate, task: Task, exam: Exam, tokenizer: Any) -> Prompt:
    """The one that was asked for, or the adapter's own; the task's where it says none."""
    if exam.prompt:
        return prompting.choose(exam.prompt, task, tokenizer)
    if exam.protocol == "paper" and task.released:
        return task.released.asked
    return candidate.prompt or task.prompt


def _tasks(exam: Exam, about: dict[str, Any], label: str) -> tuple[Task, ...]:
    if not exam.task and "task" not in about:
        raise ModelError("no-task", f"{label} does not say which task it was trained on", "give --task")
    return tuple(registry().task(name) for name in exam.task or [about["task"]])


def _rows(task: Task, exam: Exam) -> list[Row]:
    count = exam.limit or _GENERATED
    found = rows.rows(task, "test", exam.data, count, exam.seed, exam.columns).rows[: exam.limit]
    check_answers(task, found)
    return found
