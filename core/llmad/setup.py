"""Setting up: everything that a run needs before its first step, from the rows to the optimizer."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from llmad import adapter_dir, checkpoint, data, pretrained, prompting, resuming, rows, run_dir, train
from llmad.attachment import attach, parameters, state
from llmad.batching import Batching, batching
from llmad.checks import Checks, check
from llmad.errors import UsageError
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

    @property
    def done(self) -> int:
        """Steps that an earlier process has done."""
        return self.found.step if self.found else 0

    @property
    def identity(self) -> dict[str, Any]:
        """What a continuation must have in common with the run."""
        return resuming.identity(self.recipe, self.rows, self.batching.name)


def set_up(recipe: Recipe, resume: Path | None) -> Setup:
    """Rows before the model: what is wrong with them is told before anything heavy is loaded.

    Args:
        recipe: the validated recipe.
        resume: the run directory to go on with.

    Raises:
        LlmadError: of every kind; nothing is written.
    """
    task = registry().task(recipe.task)
    run = RunDir(resume) if resume else run_dir.choose(recipe.output_dir, _stem(recipe))
    loaded = rows.rows(task, "train", recipe.data, task.train_rows, recipe.seed, recipe.columns)
    found = _last_saved(recipe, run, loaded.rows) if resume else None
    test_rows = _test_rows(recipe, task) if recipe.do_eval else []
    tests = _tests(recipe, task, test_rows)

    device = train.accelerator()
    base = _base(recipe, device)
    _adapt(recipe, base.model, found)
    how = batching(base.model, data.pad_token(base.tokenizer), recipe.packing)
    if found:
        resuming.check_same(resuming.identity(recipe, loaded.rows, how.name), found.recipe)
    adam = train.optimizer(dict(parameters(base.model)), recipe)
    scaler = train.loss_scaler(base.model)
    if found:
        checkpoint.restore(adam, scaler, found.path)

    prompt = prompting.choose(recipe.prompt or prompting.called_for(loaded.layout), task, base.tokenizer)
    encoded = data.encode(loaded.rows, prompt, base.tokenizer, _longest(recipe, base.model), recipe.train_on_prompt)
    lengths = tuple(len(example.ids) for example in encoded.examples)
    return Setup(
        recipe=recipe,
        task=task,
        run=run,
        rows=loaded.rows,
        conversations=loaded.conversations,
        test_rows=test_rows,
        found=found,
        device=device,
        base=base,
        prompt=prompt,
        built_on=[name for name in state(base.model).adapters if name != "default"],
        encoded=encoded,
        checks=check(loaded.rows, encoded, tests),
        batching=how,
        schedule=Schedule(recipe, lengths, _rate(recipe, base.model)),
        adam=adam,
        scaler=scaler,
    )


def _last_saved(recipe: Recipe, run: RunDir, examples: list[Row]) -> checkpoint.Found | None:
    """The newest valid checkpoint of a run that is gone on with, if what is trained is still the same."""
    found = checkpoint.newest(run.checkpoints)
    if found is None:
        resuming.check_nothing_saved(run)
        return None
    resuming.check_same(resuming.identity(recipe, examples), found.recipe)
    resuming.say_versions(found.versions)
    return found


def _base(recipe: Recipe, device: Accelerator) -> pretrained.Pretrained:
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
    """No row may be longer than the recipe says, or than the model has positions for."""
    return min(recipe.max_length, getattr(model.config, "max_position_embeddings", None) or recipe.max_length)


def _test_rows(recipe: Recipe, task: Task) -> list[Row]:
    if not rows.both_splits(recipe.data):
        raise UsageError("no-test-rows", f"do_eval: {recipe.data} holds the training rows only", "use llmad evaluate")
    found = rows.rows(task, "test", recipe.data, recipe.max_eval_samples, recipe.seed, recipe.columns)
    return found.rows[: recipe.max_eval_samples]


def _tests(recipe: Recipe, task: Task, test_rows: list[Row]) -> dict[str, list[Row]]:
    """Test rows to look for among the training rows: the task's own, and the sets that lie beside the data."""
    sets = {task.name: test_rows} if test_rows else {}
    if recipe.data and os.path.exists(recipe.data):  # noqa: PTH110  a place on the hub is no path
        folder = Path(recipe.data) if Path(recipe.data).is_dir() else Path(recipe.data).parent
        beside = [other.name for other in tasks_in(folder)]
        sets = {**(sets_in(folder, beside) if beside else {}), **sets}
    return sets
