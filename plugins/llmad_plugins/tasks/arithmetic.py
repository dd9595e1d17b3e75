"""Arithmetic: generated word problems with a worked answer; scored by the same code as the real math sets."""

from llmad import Prompt, Split, Task, hookimpl
from llmad_plugins.tasks.math import judge
from llmad_plugins.tasks.word_problems import generate


def _rows(split: Split, count: int, seed: int) -> list[dict[str, str]]:
    return generate(split, count, seed)


ARITHMETIC = Task(
    name="arithmetic",
    summary="Generated word problems of one step; train and test share no template and no pair of numbers",
    prompt=Prompt(question="Question: {instruction}\nAnswer:", lead=" "),
    judge=judge,
    generate=_rows,
    train_rows=6000,
    max_new_tokens=40,
)


@hookimpl
def llmad_tasks() -> list[Task]:
    """The generated task."""
    return [ARITHMETIC]
