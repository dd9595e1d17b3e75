"""Setting up: everything that a run needs before its first step, from the rows to the optimizer."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from llmad import (
    adapter_dir,
    checkpoint,
    data,
    fitting,
    launch,
    picking,
    pretrained,
    prompting,
    recompute,
    resuming,
    rows,
    run_dir,
    train,
)
from llmad.activation import only
from llmad.attachment import attach, parameters, state
from llmad.batching import Batching, batching, batching_together
from llmad.budget import Budget
from llmad.checks import Checks, check
from llmad.errors import UsageError
from llmad.generation import positions
from llmad.prompt import Prompt, Row
from llmad.recipe import Recipe
from llmad.registry import parse_spec, registry
from llmad.run_dir import RunDir
from llmad.schedule import Schedule
from llmad.sets import sets_in, tasks_in
from llmad.task import Task


@dataclass(frozen=True)
class Setup:
    """All of it."""

    recipe: Recipe
    task: Task
    run: RunDir
    rows: list[Row]
    conversations: int
    test_rows: list[Row]
    found: checkpoint.Found | None
    device: Accelerator
    base: pretrained.Pretrained
    prompt: Prompt
    built_on: list[str]
    encoded: data.Encoded
    checks: Checks
    batching: Batching
    schedule: Schedule
    adam: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    name: str = "default"  # of the adapter on the model
    picked: picking.Picked | None = None  # to fit into memory

    @property
    def done(self) -> int:
        """Steps that an earlier process has done."""
        return self.found.step if self.found else 0

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a continuation must have in common with the run."""
        return resuming.identity(self.recipe, self.rows, self.batching.name, self.schedule.processes)

    @cached_property
    def memory(self) -> Budget | str:
        """What the run will take, or why that is not known."""
        if self.picked:
            return self.picked.memory
        return fitting.plan(fitting.Run(self.base.model, self.batching, self.schedule, self.encoded.examples))


def set_up(recipe: Recipe, resume: Path | None) -> Setup:
    """Rows before the model: what is wrong with them is told before anything heavy is loaded.

    Args:
        recipe: the validated recipe.
        resume: the run directory to go on with.

    Raises:
        LlmadError: of every kind; nothing is written.
    """
    task = registry().task(recipe.task)
    place = launch.join()
    run = RunDir(resume) if resume else place.from_main(lambda: run_dir.choose(recipe.output_dir, _stem(recipe)))
    known = picking.kept(recipe, run.told()) if resume else None
    recipe = known or recipe
    loaded = rows.rows(task, "train", recipe.data, task.train_rows, recipe.seed, recipe.columns)
    found = place.from_main(lambda: _last_saved(recipe, run, loaded.rows)) if resume else None
    test_rows = test_rows_of(recipe, task) if recipe.do_eval else []
    tests = tests_beside(recipe, task, test_rows)

    device = launch.accelerator()
    base = load_base(recipe, device)
    _adapt(recipe, base.model, found)
    if recipe.gradient_checkpointing:
        recompute.enable(base.model)
    how = batching(base.model, data.pad_token(base.tokenizer), recipe.packing)
    if found:
        resuming.check_same(resuming.identity(recipe, loaded.rows, how.name, place.count), found.recipe)
    ground = Ground(task, device, base, {recipe.seed: loaded}, tests)
    lesson, picked = _lesson(ground, recipe, _longest(recipe, base.model)), None
    if recipe.auto_find_batch_size and not (known or found):
        schedule, examples = _schedule(ground, recipe, lesson), lesson.encoded.examples
        picked = picking.pick(fitting.Run(base.model, how, schedule, examples))
        recipe = picked.recipe
    own = _setup(ground, recipe, run, how, lesson, found=found, test_rows=test_rows, picked=picked)
    if found:
        checkpoint.restore(own.adam, own.scaler, found.path)
    return own


@dataclass(frozen=True)
class Ground:
    """What runs on one base share.

    Attributes:
        task: brings the prompt.
        device: runs the backward pass.
        base: the base.
        loaded: the rows to train on, of each seed.
        tests: test rows to look for among them.
    """

    task: Task
    device: Accelerator
    base: pretrained.Pretrained
    loaded: Mapping[int, rows.Loaded]
    tests: dict[str, list[Row]]


def set_up_together(ground: Ground, wanted: Mapping[str, tuple[Recipe, RunDir]]) -> list[Setup]:
    """Fresh adapters beside one another, each under its own name and as it would be alone.

    Args:
        ground: what they share.
        wanted: name to the recipe and the directory of its run; the recipes differ in adapter and seed.

    Raises:
        LlmadError: of every kind; nothing is written.
    """
    model, first = ground.base.model, next(iter(wanted.values()))[0]
    for name, (recipe, _) in wanted.items():
        torch.manual_seed(recipe.seed)
        attach(model, recipe.adapter, name)
    pad = data.pad_token(ground.base.tokenizer)
    alone = len(wanted) == 1
    how = batching(model, pad, first.packing) if alone else batching_together(model, [*wanted], pad, first.packing)
    lessons: dict[tuple[int, int], _Lesson] = {}  # by their rows, which several seeds may share, and the longest
    made = []
    for name, (recipe, run) in wanted.items():
        with only(model, name):
            key = id(ground.loaded[recipe.seed]), _longest(recipe, model)
        lessons[key] = lessons.get(key) or _lesson(ground, recipe, key[1])
        made.append(_setup(ground, recipe, run, how, lessons[key], name))
    return made


@dataclass(frozen=True)
class _Lesson:
    """What is learnt from, as tokens."""

    prompt: Prompt
    encoded: data.Encoded
    checks: Checks


def _lesson(ground: Ground, recipe: Recipe, longest: int) -> _Lesson:
    base, loaded = ground.base, ground.loaded[recipe.seed]
    prompt = prompting.choose(recipe.prompt or prompting.called_for(loaded.layout), ground.task, base.tokenizer)
    encoded = data.encode(loaded.rows, prompt, base.tokenizer, longest, recipe.train_on_prompt)
    return _Lesson(prompt, encoded, check(loaded.rows, encoded, ground.tests))


def _setup(
    ground: Ground,
    recipe: Recipe,
    run: RunDir,
    how: Batching,
    lesson: _Lesson,
    name: str = "default",
    found: checkpoint.Found | None = None,
    test_rows: Sequence[Row] = (),
    picked: picking.Picked | None = None,
) -> Setup:
    base, loaded = ground.base, ground.loaded[recipe.seed]
    below = [other for other in state(base.model).adapters if other != "default"]
    return Setup(
        recipe=recipe,
        task=ground.task,
        run=run,
        rows=loaded.rows,
        conversations=loaded.conversations,
        test_rows=list(test_rows),
        found=found,
        device=ground.device,
        base=base,
        prompt=lesson.prompt,
        built_on=below if name == "default" else [],
        encoded=lesson.encoded,
        checks=lesson.checks,
        batching=how,
        schedule=_schedule(ground, recipe, lesson),
        adam=train.optimizer(dict(parameters(base.model, name)), recipe),
        scaler=train.loss_scaler(base.model),
        name=name,
        picked=picked,
    )


def _schedule(ground: Ground, recipe: Recipe, lesson: _Lesson) -> Schedule:
    lengths = tuple(len(example.ids) for example in lesson.encoded.examples)
    return Schedule(recipe, lengths, _rate(recipe, ground.base.model), ground.device.num_processes)


def _last_saved(recipe: Recipe, run: RunDir, examples: list[Row]) -> checkpoint.Found | None:
    """The newest valid checkpoint of a run that is gone on with, if what is trained is still the same."""
    found = checkpoint.newest(run.checkpoints)
    if found is None:
        resuming.check_nothing_saved(run)
        return None
    resuming.check_same(resuming.identity(recipe, examples, processes=launch.join().count), found.recipe)
    resuming.say_versions(found.versions)
    return found


def load_base(recipe: Recipe, device: Accelerator) -> pretrained.Pretrained:
    """The base that a recipe names.

    Raises:
        LlmadError: of every kind.
    """
    return pretrained.load(
        recipe.backbone,
        recipe.dtype,
        device.device,
        recipe.device_map,
        offload_folder=recipe.offload_folder,
        quantize=recipe.quantize,
    )


def _adapt(recipe: Recipe, model: nn.Module, found: checkpoint.Found | None) -> None:
    """Attach a fresh adapter on the frozen ones below it, or what a checkpoint holds."""
    if found:
        adapter_dir.load(model, found.path, trainable=True)
        return
    for name, folder in recipe.frozen.items():
        adapter_dir.load(model, adapter_dir.run_adapter(Path(folder)), name)
    torch.manual_seed(recipe.seed)
    attach(model, recipe.adapter)


def _stem(recipe: Recipe) -> str:
    return f"{Path(recipe.backbone).name}-{recipe.adapter.partition('[')[0].replace(':', '-')}-{recipe.task}"


def _rate(recipe: Recipe, model: Any) -> float:
    return recipe.learning_rate or parse_spec(recipe.adapter).rate(model.config.hidden_size)


def _longest(recipe: Recipe, model: Any) -> int:
    """No row may be longer than the recipe says, or than the model and the acting adapters leave positions for."""
    return positions(model, recipe.max_length)


def test_rows_of(recipe: Recipe, task: Task) -> list[Row]:
    """The rows that base and adapter are scored on.

    Raises:
        UsageError: the recipe's data holds the training rows only.
        DataError: there are none, or they are malformed.
    """
    if not rows.both_splits(recipe.data):
        raise UsageError("no-test-rows", f"do_eval: {recipe.data} holds the training rows only", "use llmad evaluate")
    found = rows.rows(task, "test", recipe.data, recipe.max_eval_samples, recipe.seed, recipe.columns)
    return found.rows[: recipe.max_eval_samples]


def tests_beside(recipe: Recipe, task: Task, test_rows: list[Row]) -> dict[str, list[Row]]:
    """Test rows to look for among the training rows: the task's own, and the sets that lie beside the data."""
    sets = {task.name: test_rows} if test_rows else {}
    if recipe.data and os.path.exists(recipe.data):  # noqa: PTH110  a place on the hub is no path
        folder = Path(recipe.data) if Path(recipe.data).is_dir() else Path(recipe.data).parent
        beside = [other.name for other in tasks_in(folder)]
        sets = {**(sets_in(folder, beside) if beside else {}), **sets}
    return sets
