"""Stored answers: texts that a model wrote, read and compared by a task's judge. No model, and no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmad.errors import UsageError, nearest
from llmad.exam import PROTOCOLS
from llmad.score import Answer, Score, tally
from llmad.table import Entry, bad_rows, entries
from llmad.task import Task

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
    """Score the answers of a file whose rows have `output_pred` and `answer`; `table.entries` says which files.

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
    found = entries(path)
    faults = [(entry, fault) for entry in found for fault in _faults(task, entry)]
    if faults:
        hint = "a row needs output_pred, the text that the model wrote, and answer, the right one"
        raise bad_rows(str(path), faults, hint)
    answers = [_answer(task, protocol, entry) for entry in found]
    return StoredScore(str(path), protocol, tally(task.name, answers), answers)


def _faults(task: Task, entry: Entry) -> Iterator[str]:
    for field, kinds in (("output_pred", str), ("answer", str | int | float)):
        value = entry.values.get(field)
        if field not in entry.values:
            yield f" has no field {field!r}"
        elif not isinstance(value, kinds) or isinstance(value, bool):
            yield f": {field} is {type(value).__name__}, not text"
        elif field == "answer":
            yield from _unreadable(task, str(value))


def _unreadable(task: Task, gold: str) -> Iterator[str]:
    try:
        task.judge(gold)
    except ValueError as error:
        yield f": task {task.name} cannot read the right answer: {error}"


def _answer(task: Task, protocol: str, entry: Entry) -> Answer:
    gold, text = str(entry.values["answer"]), entry.values["output_pred"]
    judge = task.judge(gold)
    found = judge.read(text, protocol)
    right = found is not None and judge.agree(found, gold)
    question = str(entry.values.get("instruction", ""))
    return Answer(task.name, entry.number - 1, question, text, found, gold, right, tokens=0)
