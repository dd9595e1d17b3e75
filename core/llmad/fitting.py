"""Fitting: how much of a run goes through at once in the memory that there is.

However the rows of an optimizer step are cut into forward passes, the step is the same up to rounding: the schedule
gives it the same rows, and its loss is a mean over all of its learnt tokens. Only dropout falls elsewhere.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from torch import nn

from llmad import recompute
from llmad.batching import Batching
from llmad.budget import Budget, estimate
from llmad.data import Example
from llmad.errors import LlmadError
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.usage import NotCountedError

SIZE, TIMES, AGAIN = "per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"
Cut = dict[str, int]  # of a step's rows: how many at once, and how often


@dataclass(frozen=True)
class Run:
    """A run before its first step.

    Attributes:
        model: with its adapter attached.
        how: its rows stand in a forward pass.
        schedule: of its steps.
        examples: its encoded rows.
    """

    model: nn.Module
    how: Batching
    schedule: Schedule
    examples: Sequence[Example]

    @property
    def recipe(self) -> Recipe:
        """What it is told."""
        return self.schedule.recipe

    def estimate(self, **changed: Any) -> Budget:
        """Its budget with other values in the recipe; raises as `budget.estimate`."""
        told = self.recipe.model_copy(update=changed)
        return estimate(self.model, self.how, replace(self.schedule, recipe=told), self.examples)


def plan(run: Run) -> Budget | str:
    """The budget of a run, with a cure where it may not fit; why there is none, where the model fails in trying it out.

    Raises:
        LlmadError: the step itself would.
    """
    try:
        found = run.estimate()
        return found if found.fits else replace(found, cure=_cure(run))
    except NotCountedError as error:  # the run is not stopped for that
        return f"not known: {error}"


def rows_a_step(recipe: Recipe) -> int:
    """Rows of an optimizer step."""
    return recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps


def largest(run: Run, most: int, **changed: Any) -> tuple[Cut, Budget] | None:
    """The largest number of rows at once that fits, and the budget; None where not even one row does.

    Args:
        run: the run.
        most: no more than so many at once.
        changed: other values of its recipe.

    Raises:
        NotCountedError: the model fails, and not for want of memory.
        LlmadError: the step itself would.
    """
    rows = rows_a_step(run.recipe)
    cuts = [{SIZE: size, TIMES: rows // size} for size in range(most, 0, -1) if rows % size == 0]

    @cache
    def tried(place: int) -> Budget | None:
        return _fitting(lambda: run.estimate(**cuts[place], **changed))

    place = bisect_left(range(len(cuts)), True, key=lambda place: tried(place) is not None)
    found = tried(place) if place < len(cuts) else None
    return None if found is None else (cuts[place], found)


def _fitting(estimated: Callable[[], Budget]) -> Budget | None:
    """A budget that fits; a step that is tried out and finds no memory does not."""
    try:
        found = estimated()
    except NotCountedError as error:
        if error.shortage:
            return None
        raise
    return found if found.fits else None


@contextmanager
def again(model: nn.Module) -> Iterator[bool]:
    """Within the block the model's blocks are computed again; whether they can be."""
    try:
        recompute.enable(model)
    except LlmadError:
        yield False
        return
    try:
        yield True
    finally:
        recompute.disable(model)


def _cure(run: Run) -> str:
    """What would fit: activation checkpointing, fewer rows at once, or both."""
    fewer = run.recipe.per_device_train_batch_size - 1
    cures = [_told(largest(run, fewer))]
    if not run.recipe.gradient_checkpointing:
        with again(run.model) as can:
            cures.append(_with_again(run, fewer) if can else "")
    found = [cure for cure in cures if cure]
    return " or ".join(found) or "not even one row at a time fits: quantise the base, or lower max_length"


def _with_again(run: Run, fewer: int) -> str:
    """Whether activation checkpointing would do, or with how many rows at once."""
    if _fitting(lambda: run.estimate(**{AGAIN: True})):
        return f"{AGAIN}=true"
    cut = _told(largest(run, fewer, **{AGAIN: True}))
    return f"{AGAIN}=true with {cut}" if cut else ""


def _told(found: tuple[Cut, Budget] | None) -> str:
    return " and ".join(f"{key}={value}" for key, value in found[0].items()) if found else ""
