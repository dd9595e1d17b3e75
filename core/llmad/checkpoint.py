"""Checkpoints: the adapter and the optimizer after a step, in a directory that is whole or not there.

A checkpoint is written to a temporary directory, synced, given a manifest of SHA-256 sums last, and renamed into
place. One whose manifest does not agree is passed over, and the newest that does is used.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from llmad.errors import ResumeError, StorageError
from llmad.files import storing, write_json

MANIFEST, OPTIMIZER, CURSOR = "manifest.json", "optimizer.safetensors", "cursor.json"


@dataclass(frozen=True)
class Found:
    """A valid checkpoint, and the newer ones that were passed over, with the reason."""

    path: Path
    step: int
    recipe: dict[str, Any]
    skipped: tuple[str, ...]


def save(
    folder: Path,
    step: int,
    save_adapter: Callable[[Path], object],
    adam: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    recipe: dict[str, Any],
    keep: int,
) -> Path:
    """Write the checkpoint of a step, then delete all but the newest `keep`.

    Raises:
        StorageError: it cannot be written; the older ones are still there.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.partial"
    with storing(final):
        shutil.rmtree(temporary, ignore_errors=True)
        save_adapter(temporary)
        save_file(_optimizer_tensors(adam), temporary / OPTIMIZER)
        write_json(temporary / CURSOR, {"step": step, "recipe": recipe, "scaler": scaler.state_dict()})
        write_json(temporary / MANIFEST, {name: _sum(temporary / name) for name in _files(temporary)})
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync(folder)
        for old in sorted(folder.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
    return final


def newest(folder: Path) -> Found | None:
    """The newest checkpoint whose files agree with its manifest; None where none was ever written.

    Raises:
        StorageError: there are checkpoints, and every one is damaged.
    """
    skipped: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        if fault := _fault(path):
            skipped.append(f"{path.name}: {fault}")
            continue
        cursor = json.loads((path / CURSOR).read_text(encoding="utf-8"))
        return Found(path, cursor["step"], cursor["recipe"], tuple(skipped))
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


def _optimizer_tensors(adam: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    parameters = [parameter for group in adam.param_groups for parameter in group["params"]]
    return {
        f"{place}.{key}": state.cpu().contiguous()
        for place, parameter in enumerate(parameters)
        for key, state in adam.state.get(parameter, {}).items()  # a parameter that no text has reached has none
    }


def _fault(path: Path) -> str:
    """What is wrong with a checkpoint; empty where nothing is."""
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(sums, dict) or set(_files(path)) - {MANIFEST} != sums.keys():
            return f"its files are not those of {MANIFEST}"
        return next((f"{name} does not agree with its sum" for name in sums if _sum(path / name) != sums[name]), "")
    except (OSError, ValueError) as error:
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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
