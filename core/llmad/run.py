"""A training run from end to end. Reads top to bottom as the way of the data; an observer is told what happens."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from llmad import budget, placement, report, resuming, rows, run_dir
from llmad.asking import Scoring, Sheet, ask, check_changes, digest
from llmad.attachment import state
from llmad.checks import Checks
from llmad.errors import UsageError
from llmad.exam import Exam, manner
from llmad.fingerprint import fingerprint
from llmad.keeping import check_same, train_together
from llmad.launch import join
from llmad.lock import locked
from llmad.memory import enough_memory
from llmad.plan import Plan, summary
from llmad.quantization import quantization
from llmad.ranks import Ranks
from llmad.recipe import Recipe
from llmad.score import Score
from llmad.scoring import adapter_hash
from llmad.setup import Setup, set_up
from llmad.step import Step


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before the first step."""

    recipe: Recipe
    plan: Plan
    checks: Checks
    batching: str
    question: str
    answer: str
    end: str
    steps: int
    done: int
    skipped: tuple[str, ...]
    device: str
    quantization: str | None
    learning_rate: float
    output: Path
    memory: budget.Budget | str
    picked: str = ""
    conversations: int = 0
    resumed: Path | None = None
    processes: int = 1


@dataclass(frozen=True)
class Finished:
    """The run is over, now or `already`: where it lies, and the scores of base and adapter if they were asked for."""

    output: Path
    scores: dict[str, Score]
    already: bool = False


Event = Prepared | Step | Scoring | Finished
Observe = Callable[[Event], None]


def train_adapter(recipe: Recipe, observe: Observe, resume: Path | None = None, dry: bool = False) -> None:
    """Train what a recipe asks for and leave a run directory.

    Where a launcher started several processes each calls this, and they train together; the main one writes.

    Args:
        recipe: the validated recipe.
        observe: is told of every event, in the main process.
        resume: the run directory to go on with.
        dry: stop before the first step, with nothing written.

    Raises:
        LlmadError: of every kind; until training begins nothing is written.
        SystemExit: another process tells the error that ended this one.
    """
    ranks = join()
    with ranks.together(), ExitStack() as held:
        _check_placed(recipe, ranks)
        if resume and not dry:
            ranks.from_main(lambda: held.enter_context(locked(resume)))
        own = set_up(recipe, resume)
        check_same(own, ranks)
        over = own.done == own.schedule.steps and ranks.from_main(lambda: _is_over(own))
        if ranks.main:
            observe(_prepared(own, over))
        if over:
            if ranks.main:
                observe(Finished(own.run.path, {}, already=True))
        elif not dry:
            _run(own, observe, resume is None, ranks)


def _check_placed(recipe: Recipe, ranks: Ranks) -> None:
    """Refuse what one process alone can do: part a base among devices, and look for room that nobody else takes."""
    if ranks.count > 1 and recipe.auto_find_batch_size:
        reason = f"auto_find_batch_size looks at the memory of one process, and there are {ranks.count}"
        raise UsageError("one-process", reason, "see what --dry-run picks in one, and give that")
    if ranks.count > 1 and recipe.device_map is not None:
        reason = f"device_map places one base, and each of {ranks.count} processes holds a whole one on its own device"
        raise UsageError("one-process", reason, "leave device_map out, or start llmad without a launcher")


def _is_over(own: Setup) -> bool:
    return resuming.is_over(own.run, own.recipe, own.base.model)


def _run(own: Setup, observe: Observe, new: bool, ranks: Ranks) -> None:
    """Train, save, score and report; the processes that do not write are done when training is."""
    recipe = own.recipe
    cure = "lower per_device_train_batch_size, and raise gradient_accumulation_steps by as much"
    with ExitStack() as held:
        ranks.from_main(lambda: held.enter_context(run_dir.opened(own.run, recipe.model_dump(mode="json"), new)))
        held.enter_context(enough_memory(cure))
        train_together([own], lambda _, step: observe(step), ranks)
        if not ranks.main:
            return
        scores = _score_both(own, observe) if own.test_rows else {}
        leave(own, scores)
    observe(Finished(own.run.path, scores))


def leave(own: Setup, scores: dict[str, Score]) -> None:
    """Draw the loss and write the model card of a run that is trained."""
    report.plot_loss(own.run.read_metrics(), own.run.path / "loss.png")
    report.write_card(own.run.path / "README.md", own.recipe.model_dump(mode="json"), _facts(own), scores)


def _prepared(own: Setup, over: bool) -> Prepared:
    first = own.rows[0]
    return Prepared(
        recipe=own.recipe,
        plan=summary(own.base.model),
        checks=own.checks,
        batching=own.batching.told,
        question=own.prompt.ask(first),
        answer=own.prompt.answer(first),
        end=own.base.tokenizer.eos_token,
        steps=own.schedule.steps,
        done=own.done,
        resumed=own.found.path if own.found else None,
        skipped=own.found.skipped if own.found else (),
        device=placement.devices(own.base.model),
        quantization=quantization(own.base.model),
        learning_rate=own.schedule.peak,
        output=own.run.path,
        memory="none is needed, the run is over" if over else own.memory,
        picked=own.picked.words if own.picked else "",
        conversations=own.conversations,
        processes=own.schedule.processes,
    )


def _facts(own: Setup) -> list[tuple[str, str]]:
    """What the model card says."""
    made, checks, quantised = summary(own.base.model, own.name), own.checks, quantization(own.base.model)
    return [
        *([("base quantised as", quantised)] if quantised else []),
        ("placement", made.roles),
        *([("built on", ", ".join(own.built_on))] if own.built_on else []),
        ("trained parameters", f"{made.trainable_parameters:,} ({made.share:.2%})"),
        ("rows", f"{checks.rows:,}"),
        ("trained tokens", f"{checks.trained_tokens:,} of {checks.tokens:,}"),
        ("steps", f"{own.schedule.steps:,}"),
        ("batches", f"{own.recipe.per_device_train_batch_size} rows{_each(own)}, {own.batching.name}"),
        ("learning rate", f"{own.schedule.peak:g}"),
        ("torch", torch.__version__),
    ]


def _each(own: Setup) -> str:
    return f" in each of {own.schedule.processes} processes" if own.schedule.processes > 1 else ""


def _score_both(own: Setup, observe: Observe) -> dict[str, Score]:
    """The base and the adapter on the same rows with the same prompt."""
    task, base = own.task, own.base
    asked = manner(Exam(), task)
    hashes = {"base": digest(fingerprint(base.model)), "data": rows.fingerprint(own.test_rows)}
    stack = tuple("+".join(stage.names) for stage in state(base.model).active)
    sheets = [
        Sheet(who, label, task, own.test_rows, own.prompt, asked, (own.run.evaluation,), {**hashes, "adapter": adapter})
        for who, label, adapter in [((), "base", None), (stack, "adapter", adapter_hash(own.run.adapter))]
    ]
    check_changes(base, sheets[1])
    results = ask(base, sheets, own.recipe.per_device_eval_batch_size, observe, mix=False)
    return {result.sheet.label: result.score for result in results}
