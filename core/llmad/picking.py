"""Picking: how many rows go through at once, before the first step, and whether blocks are computed again.

What is picked is written into the run's recipe, and a run that is gone on with keeps it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmad import memory, placement, recompute
from llmad.budget import Budget, in_words
from llmad.errors import OutOfMemoryError
from llmad.fitting import AGAIN, SIZE, TIMES, Cut, Run, again, largest, plan, rows_a_step
from llmad.recipe import Recipe
from llmad.usage import NotCountedError

# By benchmarks/blocks_again.py on a CPU, LoRA on a LLaMA of width 512, float32: a step whose blocks are computed again
# takes 1.15 to 1.3 times as long (1.5 by matrix products alone: two passes forward, one backward as long). 32 tokens
# take 1.25 times as long as 4; a token of 128 takes 1.3 times as long as one of 256. No accelerator was measured.
_SLOWER = 1.3
_BUSY = {"cpu": 128}  # tokens of a forward pass that keep a device busy: fewer take hardly less time
_BUSY_ELSEWHERE = 512


@dataclass(frozen=True)
class Picked:
    """What was picked.

    Attributes:
        recipe: the run's, with it.
        words: it in a line.
        memory: the run's budget, or why there is none.
    """

    recipe: Recipe
    words: str
    memory: Budget | str


def pick(run: Run) -> Picked:
    """Pick what is fastest of what fits: all rows of a step at once if they can be, with the blocks computed once.

    More rows at once are no slower, so the largest number that fits is taken. To compute blocks again takes up to 1.3
    times as long; that is worth it only where what fits without is too little to keep the device busy, or where nothing
    does. Where it was picked, the model is left so.

    Raises:
        OutOfMemoryError: not even one row at a time is sure to fit.
        LlmadError: the step itself would.
    """
    if memory.free(run.model) is None:
        return _as_given(run, "the device does not tell what is free")
    try:
        plain = largest(run, rows_a_step(run.recipe))
        other = _computed_again(run) if plain is None or _idle(run, plain[0]) else None
    except NotCountedError:
        return _as_given(run, "what a step takes is not known")
    if plain and not (other and _time(run, other[0]) * _SLOWER < _time(run, plain[0])):
        return _picked(run, *plain)
    if other:
        recompute.enable(run.model)
        return _picked(run, {**other[0], AGAIN: True}, other[1])
    raise _too_little(run)


def kept(recipe: Recipe, before: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a continuation with what was picked for the run; None where nothing was, for such a recipe.

    Args:
        recipe: what the continuation is told.
        before: the recipe that the run wrote down.
    """
    told = {key: before.get(key) for key in (SIZE, TIMES, AGAIN)}
    size, times, blocks = told.values()
    if not (recipe.auto_find_batch_size and before.get("auto_find_batch_size") is True):
        return None
    if not (isinstance(size, int) and isinstance(times, int) and isinstance(blocks, bool)):
        return None
    same = size * times == rows_a_step(recipe) and blocks >= recipe.gradient_checkpointing
    return recipe.model_copy(update=told) if same else None


def _picked(run: Run, told: Mapping[str, Any], found: Budget) -> Picked:
    count, times = told[SIZE], told[TIMES]
    blocks = ", blocks computed again" if AGAIN in told else ""
    often = "once" if times == 1 else f"{times:,} times"
    words = f"{count:,} {'row' if count == 1 else 'rows'} at once, {often} a step{blocks}"
    return Picked(run.recipe.model_copy(update=dict(told)), words, found)


def _as_given(run: Run, reason: str) -> Picked:
    return Picked(run.recipe, f"nothing, the batch stays as it is given: {reason}", plan(run))


def _computed_again(run: Run) -> tuple[Cut, Budget] | None:
    if run.recipe.gradient_checkpointing:
        return None
    with again(run.model) as can:
        return largest(run, rows_a_step(run.recipe), **{AGAIN: True}) if can else None


def _too_little(run: Run) -> OutOfMemoryError:
    """What one row at a time would take."""
    hint = "quantise the base, or lower max_length; without auto_find_batch_size it may be tried"
    try:
        with again(run.model) as can:
            found = run.estimate(**{SIZE: 1, TIMES: rows_a_step(run.recipe), **({AGAIN: True} if can else {})})
    except NotCountedError as error:
        return OutOfMemoryError("does-not-fit", f"not even one row at a time fits: {error}", hint)
    unit, (taken, room) = in_words([found.upper, found.room or 0])
    reason = f"not even one row at a time is sure to fit: it may take {taken} {unit}, and there are {room}"
    return OutOfMemoryError("does-not-fit", reason, hint)


def _idle(run: Run, cut: Cut) -> bool:
    return _tokens(run) * cut[SIZE] < _busy(run)


def _time(run: Run, cut: Cut) -> float:
    """Of a step, as tokens that go through a busy device."""
    return cut[TIMES] * max(_tokens(run) * cut[SIZE], _busy(run))


def _tokens(run: Run) -> float:
    """Of a row, in the mean."""
    return sum(run.schedule.lengths) / len(run.schedule.lengths)


def _busy(run: Run) -> int:
    return _BUSY.get(placement.device(run.model).type, _BUSY_ELSEWHERE)
