"""Stored answers: texts that a model wrote, read and compared by a task's judge. No model, and no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmad import rows
from llmad.errors import DataError, UsageError, nearest
from llmad.score import Answer, Score, tally
from llmad.task import Task

PROTOCOLS = ("strict", "paper")
_SHOWN = 3  # faulty rows that are named; the others are counted
_KEPT = ("index", "prediction", "answer", "correct")
_TIMED = ("seconds", "tokens_per_second")


@dataclass(frozen=True)
class StoredScore:
    """What the answers of a file are worth.

    Attributes:
        file: the file.
        protocol: how they were read.
        score: all of them.
        answers: each of them, in the order of the file.
    """

    file: str
    protocol: str
    score: Score
    answers: list[Answer]

    def describe(self) -> dict[str, Any]:
        """The score and its answers as plain data, for JSON."""
        score = {key: value for key, value in self.score.describe().items() if key not in _TIMED}
        answers = [{key: getattr(answer, key) for key in _KEPT} for answer in self.answers]
        return {"file": self.file, "protocol": self.protocol, **score, "answers": answers}


def score(path: Path, task: Task, protocol: str = "strict") -> StoredScore:
    """Score the answers of a file: a JSON list, or JSON Lines, of objects with `output_pred` and `answer`.

    Args:
        path: such as the files that an evaluation leaves, or those of the scripts released with LLM-Adapters.
        task: reads and compares the answers.
        protocol: `strict` or `paper`, as the task defines them. An empty text gives no answer in either.

    Raises:
        DataError: a file that is missing, empty or malformed, or rows that lack a text or a right answer that the task
            can read; with the row counted from 1.
        UsageError: there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise UsageError("unknown-protocol", f"there is no protocol {protocol!r}", nearest(protocol, list(PROTOCOLS)))
    entries = rows._entries(path)
    if not entries:
        raise DataError("empty-data", f"{path} holds no rows")
    faults = [fault for number, entry in enumerate(entries, 1) for fault in _faults(task, number, entry)]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        hint = "a row needs output_pred, the text that the model wrote, and answer, the right one"
        raise DataError("bad-row", f"{path}: {'; '.join(faults[:_SHOWN])}{more}", hint)
    answers = [_answer(task, protocol, index, entry) for index, entry in enumerate(entries)]
    return StoredScore(str(path), protocol, tally(task.name, answers), answers)


def _faults(task: Task, number: int, entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"row {number} is no object"
        return
    for field, kinds in (("output_pred", str), ("answer", str | int | float)):
        value = entry.get(field)
        if field not in entry:
            yield f"row {number} has no field {field!r}"
        elif not isinstance(value, kinds) or isinstance(value, bool):
            yield f"row {number}: {field} is {type(value).__name__}, not text"
        elif field == "answer":
            yield from _unreadable(task, number, str(value))


def _unreadable(task: Task, number: int, gold: str) -> Iterator[str]:
    try:
        task.judge(gold)
    except ValueError as error:
        yield f"row {number}: task {task.name} cannot read the right answer: {error}"


def _answer(task: Task, protocol: str, index: int, entry: dict[str, Any]) -> Answer:
    gold, text = str(entry["answer"]), entry["output_pred"]
    judge = task.judge(gold)
    found = judge.read(text, protocol)
    right = found is not None and judge.agree(found, gold)
    return Answer(task.name, index, str(entry.get("instruction", "")), text, found, gold, right, tokens=0)
