"""A training run from end to end. Reads top to bottom as the way of the data; an observer is told what happens."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llmad import adapter_dir, checkpoint, data, pretrained, report, rows, run_dir, train
from llmad.attachment import attach, disabled, parameters
from llmad.errors import ResumeError, UsageError
from llmad.evaluate import Score
from llmad.files import write_json
from llmad.memory import enough_memory
from llmad.plan import Plan, summary
from llmad.recipe import Recipe
from llmad.registry import parse_spec, registry
from llmad.run_dir import RunDir
from llmad.scoring import Questions, Scoring, ask
from llmad.task import Row, Task

# What may differ between a run and its continuation: how long it goes on, and what is only looked at.
_MAY_CHANGE = {"output_dir", "max_steps", "num_train_epochs", "logging_steps", "save_steps", "save_total_limit",
               "do_eval", "max_eval_samples", "per_device_eval_batch_size"}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before the first step."""

    recipe: Recipe
    plan: Plan
    rows: int
    left_out: int
    empty: int
    tokens: int
    trained_tokens: int
    question: str
    answer: str
    end: str
    steps: int
    done: int
    skipped: tuple[str, ...]
    device: str
    learning_rate: float
    output: Path


@dataclass(frozen=True)
class Finished:
    """The run is over: where it lies, and the scores of base and adapter if they were asked for."""

    output: Path
    scores: dict[str, Score]


Event = Prepared | train.Step | Scoring | Finished
Observe = Callable[[Event], None]


def train_adapter(recipe: Recipe, observe: Observe, resume: Path | None = None, dry: bool = False) -> None:
    """Train what a recipe asks for and leave a run directory.

    Args:
        recipe: the validated recipe.
        observe: is told of every event.
        resume: the run directory to go on with.
        dry: stop before the first step, with nothing written.

    Raises:
        LlmadError: of every kind; until training begins nothing is written.
    """
    task = registry().task(recipe.task)
    run = RunDir(resume) if resume else run_dir.choose(recipe.output_dir, _stem(recipe))
    examples = rows.rows(task, "train", recipe.data, task.train_rows, recipe.seed)
    told = {**recipe.model_dump(mode="json"), "rows": rows.fingerprint(examples)}
    found = checkpoint.newest(run.checkpoints) if resume else None
    if found:
        _check_same(told, found.recipe)
    test_rows = _test_rows(recipe, task) if recipe.do_eval else []

    device = train.accelerator()
    base = pretrained.load(recipe.backbone, recipe.dtype, device.device)
    torch.manual_seed(recipe.seed)
    if found:
        adapter_dir.load(base.model, found.path, trainable=True)
    else:
        attach(base.model, recipe.adapter)
    own = dict(parameters(base.model))

    encoded = data.encode(examples, task.prompt, base.tokenizer, _longest(recipe, base.model), recipe.train_on_prompt)
    schedule = train.Schedule(recipe, tuple(len(example.ids) for example in encoded.examples), _rate(recipe))
    adam = train.optimizer(own, recipe)
    done = found.step if found else 0
    if found:
        checkpoint.restore(adam, found.path)
    observe(_prepared(recipe, base, task, examples, encoded, schedule, done, found, device.device, run))
    if dry:
        return

    cure = "lower per_device_train_batch_size, and raise gradient_accumulation_steps by as much"
    with run_dir.opened(run, recipe.model_dump(mode="json")), enough_memory(cure):
        run.rewind(done)
        for step in train.fit(
            base.model, adam, schedule, encoded.examples, data.pad_token(base.tokenizer), device, done
        ):
            if step.step % recipe.logging_steps == 0 or step.step in (1, step.steps):
                run.log(step.describe())
            if step.step == step.steps or (recipe.save_steps and step.step % recipe.save_steps == 0):
                _save_checkpoint(run, step.step, base.model, adam, told)
            observe(step)
        adapter_dir.save(base.model, run.adapter, about=_about(recipe, task))
        scores = _score_both(run, recipe, base, task, test_rows, observe) if test_rows else {}
        report.plot_loss(run.read_metrics(), run.path / "loss.png")
        report.write_card(
            run.path / "README.md", recipe.model_dump(mode="json"), _facts(base, encoded, schedule), scores
        )
    observe(Finished(run.path, scores))


def _stem(recipe: Recipe) -> str:
    return f"{Path(recipe.backbone).name}-{recipe.adapter.partition('[')[0].replace(':', '-')}-{recipe.task}"


def _rate(recipe: Recipe) -> float:
    return recipe.learning_rate or parse_spec(recipe.adapter).learning_rate


def _longest(recipe: Recipe, model: Any) -> int:
    """No row may be longer than the recipe says, or than the model has positions for."""
    return min(recipe.max_length, getattr(model.config, "max_position_embeddings", None) or recipe.max_length)


def _check_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    changed = [
        f"{key}: {before.get(key)!r} then, {now[key]!r} now"
        for key in now
        if key not in _MAY_CHANGE and before.get(key) != now[key]
    ]
    if changed:
        raise ResumeError("other-recipe", f"the run cannot go on with another recipe: {'; '.join(changed)}")


def _test_rows(recipe: Recipe, task: Task) -> list[Row]:
    if recipe.data and not Path(recipe.data).is_dir():
        raise UsageError("no-test-rows", f"do_eval: {recipe.data} holds the training rows only", "use llmad evaluate")
    found = rows.rows(task, "test", recipe.data, recipe.max_eval_samples, recipe.seed)
    return found[: recipe.max_eval_samples]


def _about(recipe: Recipe, task: Task) -> dict[str, Any]:
    prompt = {"prompt": asdict(task.prompt), "prompt_fingerprint": task.prompt.fingerprint()}
    return {
        "backbone": recipe.backbone,
        "task": task.name,
        **prompt,
        "recipe": recipe.model_dump(mode="json"),
    }


def _save_checkpoint(run: RunDir, step: int, model: Any, adam: torch.optim.Optimizer, told: dict[str, Any]) -> None:
    run.checkpoints.mkdir(exist_ok=True)
    checkpoint.save(run.checkpoints, step, model, adam, told, told["save_total_limit"])


def _prepared(
    recipe: Recipe,
    base: pretrained.Pretrained,
    task: Task,
    examples: list[Row],
    encoded: data.Encoded,
    schedule: train.Schedule,
    done: int,
    found: checkpoint.Found | None,
    device: torch.device,
    run: RunDir,
) -> Prepared:
    return Prepared(
        recipe=recipe,
        plan=summary(base.model),
        rows=len(encoded.examples),
        left_out=encoded.left_out,
        empty=sum(not row["output"].strip() for row in examples),
        tokens=encoded.tokens,
        trained_tokens=encoded.trained_tokens,
        question=task.prompt.ask(examples[0]),
        answer=task.prompt.answer(examples[0]),
        end=base.tokenizer.eos_token,
        steps=schedule.steps,
        done=done,
        skipped=found.skipped if found else (),
        device=str(device),
        learning_rate=schedule.peak,
        output=run.path,
    )


def _facts(base: pretrained.Pretrained, encoded: data.Encoded, schedule: train.Schedule) -> list[tuple[str, str]]:
    made = summary(base.model)
    return [
        ("placement", made.roles),
        ("trained parameters", f"{made.trainable_parameters:,} ({made.share:.2%})"),
        ("rows", f"{len(encoded.examples):,}"),
        ("trained tokens", f"{encoded.trained_tokens:,} of {encoded.tokens:,}"),
        ("steps", f"{schedule.steps:,}"),
        ("learning rate", f"{schedule.peak:g}"),
        ("torch", torch.__version__),
    ]


def _score_both(
    run: RunDir, recipe: Recipe, base: pretrained.Pretrained, task: Task, chosen: list[Row], observe: Observe
) -> dict[str, Score]:
    """The base first, then the adapter, on the same rows with the same prompt."""
    asked = Questions(task, chosen, task.prompt, "strict", recipe.per_device_eval_batch_size)
    with disabled(base.model):
        before = ask(base, asked, "base", run.evaluation / f"base-{task.name}.jsonl", observe)
    after = ask(base, asked, "adapter", run.evaluation / f"adapter-{task.name}.jsonl", observe)
    scores = {"base": before, "adapter": after}
    write_json(run.evaluation / "scores.json", {who: found.describe() for who, found in scores.items()})
    return scores
