"""Resuming: whether a run may be gone on with, as what, and whether there is anything left of it to do."""

import warnings
from collections.abc import Collection
from importlib.metadata import version
from typing import Any

from safetensors.torch import load_file
from torch import nn

from llmad import checkpoint, rows
from llmad.adapter_copy import copied
from llmad.attachment import state
from llmad.errors import LlmadWarning, ResumeError, StorageError
from llmad.files import not_as_written
from llmad.prompt import Row
from llmad.proof import check_tensors
from llmad.recipe import Recipe
from llmad.record import ABOUT, CONFIG, WEIGHTS
from llmad.registry import parse_spec, registry
from llmad.run_dir import RunDir

# What may differ between a run and its continuation: how long it goes on, where, and what is only looked at.
_MAY_CHANGE = {"output_dir", "max_steps", "num_train_epochs", "logging_steps", "save_steps", "save_total_limit",
               "do_eval", "max_eval_samples", "per_device_eval_batch_size", "device_map", "offload_folder"}  # fmt: skip

_LATE = "batching"  # known only when the model is there
_SHARED = "processes"  # left out where there is one, as it was before there could be several


def identity(recipe: Recipe, examples: list[Row], batching: str | None = None, processes: int = 1) -> dict[str, Any]:
    """What a run and its continuation must have in common: recipe, rows, and the plugins that make the steps.

    Args:
        recipe: the validated recipe.
        examples: the rows to train on.
        batching: how they stand in a forward pass, once that is known.
        processes: that share each step.
    """
    frozen = list(map(list, recipe.frozen.items()))  # their order counts
    told = {**recipe.model_dump(mode="json"), "frozen": frozen}
    made = {} if batching is None else {_LATE: batching}
    shared = {_SHARED: processes} if processes > 1 else {}
    return {**told, "rows": rows.fingerprint(examples), **_origins(recipe), **made, **shared}


def check_same(
    now: dict[str, Any], before: dict[str, Any], what: str = "run", may_change: Collection[str] = _MAY_CHANGE
) -> None:
    """Compare what is known now with what was before.

    Raises:
        ResumeError: with every difference that counts.
    """
    changed = [
        f"{key}: {_known(before, key)!r} then, {_known(now, key)!r} now"
        for key in {**before, **now}
        if key not in may_change and before.get(key) != now.get(key) and (key in now or key != _LATE)
    ]
    if changed:
        shared = _known(before, _SHARED)
        launch = f"launch {shared} processes" if shared > 1 else "start llmad without a launcher"
        cure = launch if shared != _known(now, _SHARED) else ""
        raise ResumeError("other-recipe", f"the {what} cannot go on with another recipe: {'; '.join(changed)}", cure)


def _known(identity: dict[str, Any], key: str) -> Any:
    return identity.get(key, 1 if key == _SHARED else None)


def versions() -> dict[str, str]:
    """The libraries that may change the last bits of a step."""
    return {name: version(name) for name in ("torch", "transformers")}


def say_versions(before: dict[str, str]) -> None:
    """Warn of libraries that are no longer those of the checkpoint."""
    now = versions()
    changed = [f"{name} {before.get(name)} then, {now[name]} now" for name in now if before.get(name) != now[name]]
    if changed:
        words = f"{'; '.join(changed)}: the steps to come may differ in their last bits from those of an unbroken run"
        warnings.warn(words, LlmadWarning, stacklevel=2)


def check_nothing_saved(run: RunDir) -> None:
    """Only a run that has saved nothing begins anew: what was saved and is gone is not trained over in silence.

    Raises:
        StorageError: its metrics have passed its first checkpoint, or it has left an adapter.
    """
    every = run.told().get("save_steps")
    passed = every and any(entry["step"] > every for entry in run.read_metrics())
    if passed or run.adapter.exists():
        reason = f"{run.path} has saved checkpoints, and {run.checkpoints} holds none"
        raise StorageError("no-checkpoints", reason, "put them back, or start again in another --output")


def is_over(run: RunDir, recipe: Recipe, model: nn.Module) -> bool:
    """Whether a run that has made all its steps was done with this recipe, and its adapter is that of the model."""
    before = run.told()
    told = {**recipe.model_dump(mode="json"), "output_dir": before.get("output_dir")}
    if run.status() != "done" or before != told:
        return False
    try:
        copied(model, built_on=[name for name in state(model).adapters if name != "default"]).check(run.adapter)
        _check_records(run)
    except StorageError as error:
        warnings.warn(f"{error}; the adapter is written again", LlmadWarning, stacklevel=2)
        return False
    return True


def is_kept(run: RunDir, recipe: Recipe, examples: list[Row]) -> bool:
    """Whether a run was done with this recipe and has the adapter of its last checkpoint: the same, without a model.

    Raises:
        ResumeError: what is there was made with another recipe or other rows.
        StorageError: it was done, and its checkpoints are gone or damaged.
    """
    before, told = run.told(), recipe.model_dump(mode="json")
    if not before:
        return False
    check_same({**told, "output_dir": before.get("output_dir")}, before, may_change=())
    if run.status() != "done":
        return False
    found = checkpoint.newest(run.checkpoints)
    if found is None:
        check_nothing_saved(run)
        return False
    check_same(identity(recipe, examples), found.recipe)
    try:
        check_tensors(run.adapter / WEIGHTS, load_file(found.path / WEIGHTS))
        _check_records(run)
    except StorageError as error:
        warnings.warn(f"{error}; the run is made anew", LlmadWarning, stacklevel=2)
        return False
    return True


def _check_records(run: RunDir) -> None:
    """Compare what an adapter directory says of the adapter with what the last checkpoint says.

    Raises:
        StorageError: the first file that differs, or is not there.
    """
    found = checkpoint.newest(run.checkpoints)
    if found is None:
        return
    for held in (path for name in (CONFIG, ABOUT) for path in found.path.rglob(name)):
        own = run.adapter / held.relative_to(found.path)
        if not own.is_file() or own.read_bytes() != held.read_bytes():
            raise not_as_written(own)


def _origins(recipe: Recipe) -> dict[str, str]:
    """The distributions that the method and the task come from, with their versions."""
    task = registry().task(recipe.task)
    offers = {
        "method of": registry().origin(type(parse_spec(recipe.adapter))),
        "task of": next((offer for _, offer in registry().offers("task") if offer.value is task), None),
    }
    return {kind: f"{offer.distribution} {offer.version}" for kind, offer in offers.items() if offer}
