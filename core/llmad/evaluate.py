"""Evaluation: greedy answers to a task's rows, read and compared by the task's judge. Takes a model, never a recipe."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from llmad import placement
from llmad.data import pad_token
from llmad.errors import DataError
from llmad.task import Prompt, Row, Task


@dataclass(frozen=True)
class Answer:
    """What the model wrote to one row, and what it was worth.

    Attributes:
        task: the task's name.
        index: the row's number, counted from 0.
        instruction: the question.
        output_pred: the text that the model wrote.
        prediction: the answer read from it; None where it gives none.
        answer: the right one.
        correct: whether they agree.
        tokens: length of the text in tokens.
    """

    task: str
    index: int
    instruction: str
    output_pred: str
    prediction: str | None
    answer: str
    correct: bool
    tokens: int

    def describe(self) -> dict[str, Any]:
        """The answer as plain data, for a file."""
        return asdict(self)


@dataclass(frozen=True)
class Score:
    """How a task went: rows, right answers, their share, texts that gave no answer, wall time."""

    task: str
    n: int
    correct: int
    accuracy: float
    unparsed: int
    seconds: float

    def describe(self) -> dict[str, Any]:
        """The score as plain data, for JSON."""
        return asdict(self)


def score(
    model: Any,
    tokenizer: Any,
    task: Task,
    rows: Sequence[Row],
    prompt: Prompt,
    protocol: str = "strict",
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
        protocol: `strict` or `paper`, as the task defines them.
        batch_size: rows generated at once; it does not change the answers.
        observe: called with each answer as it is found.

    Returns:
        The score, and the answers in the order of the rows.

    Raises:
        DataError: a right answer that the task cannot read.
    """
    _check_gold(task, rows)
    began = time.perf_counter()
    answers = []
    for answer in _answers(model, tokenizer, task, rows, prompt, protocol, batch_size):
        observe(answer)
        answers.append(answer)
    answers.sort(key=lambda answer: answer.index)
    return tally(task.name, answers, time.perf_counter() - began), answers


def tally(task: str, answers: Iterable[Answer], seconds: float) -> Score:
    """Count answers."""
    answers = list(answers)
    correct = sum(answer.correct for answer in answers)
    unparsed = sum(answer.prediction is None for answer in answers)
    return Score(task, len(answers), correct, correct / max(1, len(answers)), unparsed, round(seconds, 3))


def _check_gold(task: Task, rows: Sequence[Row]) -> None:
    for number, row in enumerate(rows, 1):
        try:
            task.judge(row["answer"])
        except ValueError as error:
            raise DataError("bad-row", f"task {task.name}, row {number}: {error}") from None


def _answers(
    model: Any, tokenizer: Any, task: Task, rows: Sequence[Row], prompt: Prompt, protocol: str, size: int
) -> Iterator[Answer]:
    """Longest questions first, so that a batch which is too large for memory fails at once."""
    model.eval()
    codes = [tokenizer(prompt.ask(row))["input_ids"] for row in rows]
    codes = [ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids for ids in codes]
    order = sorted(range(len(rows)), key=lambda index: -len(codes[index]))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        texts = _generate(model, tokenizer, [codes[index] for index in chosen], task.max_new_tokens)
        for index, (text, tokens) in zip(chosen, texts, strict=True):
            row = rows[index]
            judge = task.judge(row["answer"])
            found = judge.read(text, protocol)
            right = found is not None and judge.agree(found, row["answer"])
            yield Answer(task.name, index, row["instruction"], text, found, row["answer"], right, tokens)


@torch.inference_mode()
def _generate(model: Any, tokenizer: Any, codes: Sequence[Sequence[int]], limit: int) -> list[tuple[str, int]]:
    """Greedy continuations, each with its length in tokens; questions are padded on the left."""
    pad, end, width = pad_token(tokenizer), tokenizer.eos_token_id, max(map(len, codes))
    where = placement.device(model)
    ids = torch.tensor([[pad] * (width - len(code)) + list(code) for code in codes], device=where)
    mask = torch.tensor([[0] * (width - len(code)) + [1] * len(code) for code in codes], device=where)
    written = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        num_beams=1,
        max_new_tokens=limit,
        eos_token_id=end,
        pad_token_id=pad,
    )[:, width:]
    return [_text(tokenizer, row, end) for row in written.tolist()]


def _text(tokenizer: Any, ids: list[int], end: int) -> tuple[str, int]:
    ids = ids[: ids.index(end)] if end in ids else ids
    return tokenizer.decode(ids, skip_special_tokens=True), len(ids)
