"""Evaluation: answers to a task's rows, read and compared by the task's judge. Takes a model, never a recipe."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from llmad import generation, placement
from llmad.activation import only, per_row
from llmad.data import pad_token, token_ids
from llmad.errors import DataError, ModelError
from llmad.exam import Manner
from llmad.prompt import Prompt, Row
from llmad.score import Answer, Score, tally
from llmad.task import Judge, Task

_LOOK = 4  # tokens between two looks at whether answers are declared


@dataclass(frozen=True)
class Question:
    """One row for one model.

    Attributes:
        who: the adapters that answer, as a stack; the base where there is none.
        index: the row's number, counted from 0.
        row: with `instruction` and `answer`.
        ids: the question's tokens.
        room: how many tokens the answer may have; 0 where the question alone is too long for the model.
        judge: reads the answer.
    """

    who: tuple[str, ...]
    index: int
    row: Row
    ids: tuple[int, ...]
    room: int
    judge: Judge


def score(
    model: Any,
    tokenizer: Any,
    task: Task,
    rows: Sequence[Row],
    prompt: Prompt,
    manner: Manner | None = None,
    batch_size: int = 64,
    observe: Callable[[Answer], object] = lambda _: None,
) -> tuple[Score, list[Answer]]:
    """Ask the model every row and tally the answers.

    Args:
        model: a causal language model, with whatever adapters are active.
        tokenizer: its tokenizer.
        task: reads and compares answers.
        rows: with `instruction` and `answer`.
        prompt: how a row becomes text; the one that the adapter was trained with.
        manner: how the rows are asked; `strict`, as the task has it, where None.
        batch_size: rows generated at once; it does not change the answers.
        observe: called with each answer as it is found.

    Returns:
        The score, and the answers in the order of the rows.

    Raises:
        DataError: a right answer that the task cannot read.
    """
    manner = manner or Manner("strict", task.max_new_tokens)
    asked = questions(model, tokenizer, task, rows, prompt, manner)
    began = time.perf_counter()
    answers = []
    for batch in batches(asked, batch_size):
        for answer in answer_batch(model, tokenizer, task, batch, manner):
            observe(answer)
            answers.append(answer)
    answers.sort(key=lambda answer: answer.index)
    return tally(task.name, answers, time.perf_counter() - began), answers


def check_answers(task: Task, rows: Sequence[Row]) -> None:
    """Refuse rows whose right answer cannot be read.

    Raises:
        DataError: with the row, counted from 1.
    """
    for number, row in enumerate(rows, 1):
        try:
            task.judge(row["answer"])
        except ValueError as error:
            raise DataError("bad-row", f"task {task.name}, row {number}: {error}") from None


def questions(
    model: Any,
    tokenizer: Any,
    task: Task,
    rows: Sequence[Row],
    prompt: Prompt,
    manner: Manner,
    who: tuple[str, ...] = (),
) -> list[Question]:
    """Every row as a question to adapters, or to the base.

    Raises:
        DataError: a right answer that cannot be read.
    """
    check_answers(task, rows)
    codes = token_ids(tokenizer, [prompt.ask(row) for row in rows])
    limit = manner.max_new_tokens
    return [
        Question(who, index, row, tuple(ids), generation.room(model, len(ids), limit), task.judge(row["answer"]))
        for index, (row, ids) in enumerate(zip(rows, codes, strict=True))
    ]


def batches(asked: Sequence[Question], size: int, mix: bool = False) -> list[list[Question]]:
    """Questions of like length together, the longest first: what is too large for memory fails at once.

    Full batches are of one adapter; `mix` puts what is left over of several adapters together. All answers of a batch
    may be equally long. A pure function of its arguments, so that an evaluation which goes on has the batches of one
    that was never stopped.
    """
    cut: list[list[Question]] = []
    for room in dict.fromkeys(question.room for question in asked):
        rest: list[Question] = []
        for who in dict.fromkeys(question.who for question in asked):
            own = _longest_first(one for one in asked if (one.who, one.room) == (who, room))
            whole = len(own) - len(own) % size if mix else len(own)
            cut += _slices(own[:whole], size)
            rest += own[whole:]
        cut += _slices(_longest_first(rest), size)
    return sorted(cut, key=lambda batch: -len(batch[0].ids))


def _longest_first(asked: Iterable[Question]) -> list[Question]:
    return sorted(asked, key=lambda question: -len(question.ids))


def _slices(asked: list[Question], size: int) -> list[list[Question]]:
    return [asked[start : start + size] for start in range(0, len(asked), size)]


def answer_batch(
    model: Any, tokenizer: Any, task: Task, batch: Sequence[Question], manner: Manner, named: bool = False
) -> list[Answer]:
    """Ask the questions of one batch.

    Args:
        model: the model; whatever is active answers, unless `named`.
        tokenizer: its tokenizer.
        task: whose questions they are.
        batch: the questions.
        manner: how they are asked.
        named: let each question's own adapters answer it.

    Raises:
        ModelError: a part of the model does not leave training mode.
    """
    model.eval()
    if training := next((name for name, module in model.named_modules() if module.training), None):
        raise ModelError("in-training", f"{training} stays in training mode: dropout would change the answers")
    texts = [("", 0)] * len(batch)
    if batch[0].room:
        with acting(model, [question.who for question in batch]) if named else nullcontext():
            texts = _generate(model, tokenizer, batch, manner)
    return [_judged(task, question, *text, manner) for question, text in zip(batch, texts, strict=True)]


def acting(model: Any, who: Sequence[tuple[str, ...]]) -> AbstractContextManager[Any]:
    """Within the block each row of a batch has its own adapters; rows that are all alike are not told apart."""
    return per_row(model, who) if len(set(who)) > 1 else only(model, *who[0])


def _judged(task: Task, question: Question, text: str, tokens: int, manner: Manner) -> Answer:
    gold, judge = question.row["answer"], question.judge
    found = judge.read(text, manner.protocol)
    right = found is not None and judge.agree(found, gold)
    return Answer(task.name, question.index, question.row["instruction"], text, found, gold, right, tokens)


@torch.inference_mode()
def _generate(model: Any, tokenizer: Any, batch: Sequence[Question], manner: Manner) -> list[tuple[str, int]]:
    """What the model writes, each text with its length in tokens; questions are padded on the left."""
    pad, end, width = pad_token(tokenizer), tokenizer.eos_token_id, max(len(question.ids) for question in batch)
    where, gaps = placement.device(model), [width - len(question.ids) for question in batch]
    ids = [[pad] * gap + list(question.ids) for gap, question in zip(gaps, batch, strict=True)]
    stop = _Declared(tokenizer, width, end, [question.judge for question in batch]) if manner.stop else None
    written = model.generate(
        input_ids=torch.tensor(ids, device=where),
        attention_mask=torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps], device=where),
        do_sample=False,
        num_beams=manner.num_beams,
        max_new_tokens=batch[0].room,
        eos_token_id=end,
        pad_token_id=pad,
        stopping_criteria=StoppingCriteriaList([stop] if stop else []),
    )[:, width:].tolist()
    ends = stop.ends if stop else [None] * len(batch)
    return [_text(tokenizer, row[:last], end) for row, last in zip(written, ends, strict=True)]


def _text(tokenizer: Any, ids: list[int], end: int) -> tuple[str, int]:
    ids = ids[: ids.index(end)] if end in ids else ids
    return tokenizer.decode(ids, skip_special_tokens=True), len(ids)


class _Declared(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Ends a row once its answer is declared. `ends` has the length of each text that was ended so."""

    def __init__(self, tokenizer: Any, width: int, end: int, judges: Sequence[Judge]) -> None:
        self.tokenizer, self.width, self.end = tokenizer, width, end
        self.settled = [getattr(judge, "settled", None) for judge in judges]
        self.ends: list[int | None] = [None] * len(judges)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """Which rows, (rows,) of bool, are done."""
        length = input_ids.shape[1] - self.width
        if length % _LOOK == 0:
            for row, ids in enumerate(input_ids[:, self.width :].tolist()):
                if self.ends[row] is None and self._is_settled(row, ids):
                    self.ends[row] = length
        return torch.tensor([end is not None for end in self.ends], device=input_ids.device)

    def _is_settled(self, row: int, ids: list[int]) -> bool:
        settled = self.settled[row]
        if settled is None or self.end in ids:  # a text that has come to its end needs no other one
            return False
        return bool(settled(self.tokenizer.decode(ids, skip_special_tokens=True)))
