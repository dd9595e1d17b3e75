"""Rationale: how a teacher is asked for one, and what its reply is worth.

Zero-shot chain of thought (Kojima et al., 2022, arXiv 2205.11916, section 3), with which the training set of
LLM-Adapters was made: "Let's think step by step" first; then, where the reply declares no answer, "Therefore, the
answer is". Unlike there, the first question already asks for the declaration that `strict` reads.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from llmad.errors import DataError
from llmad.prompt import Row
from llmad.task import Task
from llmad.teacher import Dialogue, Reply

Verdict = Literal["right", "wrong", "no answer", "cut off"]
VERDICTS: tuple[Verdict, ...] = ("right", "wrong", "no answer", "cut off")
NEXT = "\nQ:"  # where a model that continues text has begun a question of its own
SECOND_TOKENS = 32  # an answer and a few words; only its first line is read
_FIRST = 'Q: {question}\nEnd with "The answer is X.", where X is {form}.\nA: Let\'s think step by step.'
_SECOND = "Therefore, the answer ({form}) is"
_DECLARED = "The answer is {answer}."
ASKED = sha256("\0".join((_FIRST, _SECOND, _DECLARED)).encode()).hexdigest()[:16]
"""A short sum of the words of the questions."""


@dataclass(frozen=True)
class Said:
    """What a teacher said to one row: the reply, and the one to the second question where that was asked."""

    row: int
    first: Reply
    second: str | None = None


@dataclass(frozen=True)
class Rationale:
    """The text that a row will teach, and whether its answer is right."""

    text: str
    verdict: Verdict


def check(task: Task, rows: list[Row]) -> None:
    """Refuse rows whose right answer could not be declared.

    Raises:
        DataError: with the row, counted from 1.
    """
    for number, row in enumerate(rows, 1):
        declared = _DECLARED.format(answer=row["answer"])
        try:
            found = task.judge(row["answer"]).read(declared, "strict")
            right = found is not None and task.judge(row["answer"]).agree(found, row["answer"])
        except ValueError as error:
            raise DataError("bad-row", f"task {task.name}, row {number}: {error}") from None
        if not right:
            said = f"task {task.name}, row {number}: no text could be right: {declared!r} is read as {found}"
            raise DataError("bad-row", said, "write the row's answer as the task reads it")


def first(row: Row) -> Dialogue:
    """The question for a rationale."""
    question = "\n".join(part for part in (row["instruction"].strip(), row.get("input", "").strip()) if part)
    return (_FIRST.format(question=question, form=_form(row)),)


def second(row: Row, said: str) -> Dialogue:
    """The question for the answer, after the rationale."""
    return (*first(row), said, _SECOND.format(form=_form(row)))


def unanswered(task: Task, row: Row, reply: Reply) -> bool:
    """Whether the second question is worth asking: a whole text, without an answer."""
    return reply.finished and bool(reply.text.strip()) and _read(task, row, reply.text) is None


def judged(task: Task, row: Row, said: Said) -> Rationale:
    """Judge what was said to a row."""
    text = said.first.text.strip()
    if not said.first.finished:
        return Rationale(text, "cut off")
    answer = _read(task, row, text)
    if answer is None and said.second and said.second.strip():
        line = said.second.strip().splitlines()[0]
        answer = _read(task, row, _DECLARED.format(answer=line))
        text = text if answer is None else f"{text} {_DECLARED.format(answer=answer)}"
    if answer is None:
        return Rationale(text, "no answer")
    return Rationale(text, "right" if task.judge(row["answer"]).agree(answer, row["answer"]) else "wrong")


def _read(task: Task, row: Row, text: str) -> str | None:
    return task.judge(row["answer"]).read(text, "strict")


def _form(row: Row) -> str:
    """The kind of answer, and no more of it, in words."""
    answer = row["answer"].strip()
    if len(answer) == 1 and answer.isalpha():
        return "the letter of the right choice"
    try:
        float(answer.replace(",", ""))
    except ValueError:
        return "the right choice, in the words of the question"
    return "a number"
