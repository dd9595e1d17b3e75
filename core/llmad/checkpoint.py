"""Checkpoints: the adapter and the optimizer after a step, in a directory that is whole or not there.

A checkpoint is written aside, synced, read back and compared with what is in memory, given a manifest of SHA-256 sums
last, and renamed into place; only then do older ones go. One whose manifest does not agree is passed over, and the
newest that does is used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from llmad.adapter_copy import AdapterCopy
from llmad.errors import ResumeError, StorageError
from llmad.files import make, replace, write_json
from llmad.folder import appearing, discard
from llmad.proof import check_tensors

MANIFEST, OPTIMIZER, CURSOR = "manifest.json", "optimizer.safetensors", "cursor.json"


@dataclass(frozen=True)
class Found:
    """A valid checkpoint, and the newer ones that were passed over, with the reason."""

    path: Path
    step: int
    recipe: dict[str, Any]
    skipped: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from after a step, as it was then, in main memory.

    Attributes:
        step: its number.
        adapter: the adapter.
        optimizer: the optimizer's tensors by the file's names.
        cursor: what else there is to know.
    """

    step: int
    adapter: AdapterCopy
    optimizer: Mapping[str, torch.Tensor]
    cursor: Mapping[str, Any]

    def write(self, folder: Path, keep: int) -> Path:
        """Write the checkpoint and read it back, then delete all before it but the newest `keep`, this one included.

        Args:
            folder: where checkpoints lie; made if it is not there.
            keep: how many are kept.

        Raises:
            StorageError: it cannot be written, or not be read back; the older ones are still there.
        """
        final, state = folder / _name(self.step), dict(self.optimizer)
        make(folder)
        with appearing(final) as partial:
            self.adapter.write(partial)
            self.adapter.check(partial)
            replace(partial / OPTIMIZER, lambda file: save_file(state, file), lambda file: check_tensors(file, state))
            write_json(partial / CURSOR, self.cursor)
            write_json(partial / MANIFEST, {name: _sum(partial / name) for name in _files(partial)})
        prune(folder, self.step, keep)
        return final


def taken(
    step: int,
    adapter: AdapterCopy,
    adam: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    recipe: dict[str, Any],
    versions: Mapping[str, str] | None = None,
) -> Checkpoint:
    """The checkpoint of a step.

    Args:
        step: its number.
        adapter: as it is after the step.
        adam: the optimizer.
        scaler: of the loss.
        recipe: what a continuation must have in common with the run.
        versions: what a continuation is told of where it differs.
    """
    cursor = {"step": step, "recipe": recipe, "versions": dict(versions or {}), "scaler": scaler.state_dict()}
    return Checkpoint(step, adapter, _optimizer_tensors(adam), cursor)


def prune(folder: Path, step: int, keep: int) -> None:
    """Delete all checkpoints up to that of a step, which must be whole, but the newest `keep`.

    Raises:
        StorageError: one cannot be deleted.
    """
    for old in [path for path in _checkpoints(folder) if path.name <= _name(step)][:-keep]:
        discard(old)


def newest(folder: Path) -> Found | None:
    """The newest checkpoint whose files agree with its manifest; None where none was ever written.

    Raises:
        StorageError: there are checkpoints, and every one is damaged.
    """
    skipped: list[str] = []
    for path in reversed(_checkpoints(folder)):
        if fault := _fault(path):
            skipped.append(f"{path.name}: {fault}")
            continue
        cursor = json.loads((path / CURSOR).read_text(encoding="utf-8"))
        return Found(path, cursor["step"], cursor["recipe"], tuple(skipped), cursor["versions"])
    if skipped:
        hint = "start again in another --output, or delete the checkpoints to start again in this one"
        raise StorageError("broken-checkpoints", f"{folder} holds no whole checkpoint: {'; '.join(skipped)}", hint)
    return None


def restore(adam: torch.optim.Optimizer, scaler: torch.amp.GradScaler, path: Path) -> None:
    """Put the state of the optimizer and of the loss scaler back.

    Raises:
        ResumeError: it belongs to other parameters.
    """
    if scaler.is_enabled():
        scaler.load_state_dict(json.loads((path / CURSOR).read_text(encoding="utf-8"))["scaler"])
    tensors = load_file(path / OPTIMIZER)
    parameters = [parameter for group in adam.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        place, _, key = name.partition(".")
        if int(place) >= len(parameters) or (tensor.dim() and tensor.shape != parameters[int(place)].shape):
            raise ResumeError("other-optimizer", f"{path / OPTIMIZER} belongs to other parameters")
        parameter = parameters[int(place)]
        adam.state[parameter][key] = tensor.to(parameter.device)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _checkpoints(folder: Path) -> list[Path]:
    """All of them, whole or damaged, the oldest first."""
    return sorted(folder.glob("step-*"))


def _optimizer_tensors(adam: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    parameters = [parameter for group in adam.param_groups for parameter in group["params"]]
    return {
        f"{place}.{key}": state.to("cpu", copy=True).contiguous()
        for place, parameter in enumerate(parameters)
        for key, state in adam.state.get(parameter, {}).items()  # a parameter that no text has reached has none
    }


def _fault(path: Path) -> str:
    """What is wrong with a checkpoint; empty where nothing is."""
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(sums, dict) or CURSOR not in sums or set(_files(path)) - {MANIFEST} != sums.keys():
            return f"its files are not those of {MANIFEST}"
        return next((f"{name} does not agree with its sum" for name in sums if _sum(path / name) != sums[name]), "")
    except (OSError, ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"


def _files(folder: Path) -> list[str]:
    """The files of a checkpoint, by their paths within it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _sum(path: Path) -> str:
    with path.open("rb") as stream:
        digest = sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
