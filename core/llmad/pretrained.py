"""Pretrained: a backbone by name, as a model with its tokenizer, or as a skeleton without weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmad.errors import ModelError, UsageError
from llmad.memory import enough_memory
from llmad.recipe import DeviceMap
from llmad.source import find

_ACCELERATORS = ("cuda", "mps", "xpu")


@dataclass(frozen=True)
class Pretrained:
    """A loaded backbone: the name it was asked by, the model in evaluation mode, and its tokenizer."""

    name: str
    model: Any
    tokenizer: Any


@enough_memory("choose dtype=bfloat16, or a smaller backbone")
def load(
    name: str,
    dtype: str = "auto",
    device: torch.device | str = "cpu",
    device_map: DeviceMap = None,
    offload_folder: str | None = None,
) -> Pretrained:
    """Load a model and its tokenizer.

    Args:
        name: a built-in name with weights, a local Hugging Face folder, or a hub id (`owner/name`).
        dtype: of the weights; `auto` takes what they are stored in.
        device: where the model goes.
        device_map: where its parts go, as transformers' `from_pretrained` reads it; then `device` has no say.
        offload_folder: with `device_map`, where weights go that are kept on disk and not in the backbone's own files.

    Raises:
        UsageError: no such backbone, one that is known by its shape only, or no such device.
        ModelError: the folder is incomplete or broken.
    """
    source = find(name)
    if isinstance(source, Mapping):
        raise UsageError(
            "no-weights",
            f"backbone {name!r} is known by its shape only",
            "give a local folder or a hub id with weights",
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    offline = isinstance(source, Path)
    _check_devices(device_map)
    placed = {} if device_map is None else {"device_map": device_map, "offload_folder": offload_folder}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=offline)
        model, report = AutoModelForCausalLM.from_pretrained(
            str(source), local_files_only=offline, dtype=dtype, output_loading_info=True, use_safetensors=True, **placed
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # transformers raises many kinds for a broken folder
        raise _broken(name, source, error) from None
    if missing := sorted(report["missing_keys"]):
        raise ModelError("broken-backbone", f"{name}: its weights lack {missing[0]} and {len(missing) - 1} others")
    # A hub model's own sampling and penalties would slip into answers that are meant to be greedy.
    model.generation_config = GenerationConfig()
    return Pretrained(name, (model if placed else model.to(device)).eval(), tokenizer)


def generation_config(name: str) -> Any:
    """How the backbone wants its text generated, by its own word; transformers' defaults where it has none."""
    source = find(name)
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(str(source), local_files_only=isinstance(source, Path))
    except OSError:
        return GenerationConfig()


def one_backbone(given: str | None, abouts: Iterable[Mapping[str, Any]]) -> str:
    """The one base of several adapters: the given one, or the one that all record.

    Raises:
        UsageError: they do not name one.
    """
    names = {given or about.get("backbone") for about in abouts}
    name = names.pop()
    if name is None or names:
        raise UsageError("no-backbone", "the adapters do not name one backbone", "give --backbone")
    return name


def common_dtype(abouts: Iterable[Mapping[str, Any]]) -> str:
    """The dtype that adapters were trained with; the base's own where they differ or do not say."""
    dtypes = {str((about.get("recipe") or {}).get("dtype", "auto")) for about in abouts}
    return dtypes.pop() if len(dtypes) == 1 else "auto"


def skeleton(name: str) -> nn.Module:
    """The model on the meta device: shapes without weights, from a folder, a built-in shape or a hub id.

    Raises:
        UsageError: no such backbone.
        ModelError: its config cannot be read or built.
    """
    source = find(name)
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        if isinstance(source, Mapping):
            config = AutoConfig.for_model(**source)
        else:
            config = AutoConfig.from_pretrained(str(source), local_files_only=isinstance(source, Path))
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise _broken(name, source, error) from None
    return model


def _check_devices(device_map: DeviceMap) -> None:
    """Refuse a device that this machine does not have, before anything is loaded."""
    for given in device_map.values() if isinstance(device_map, Mapping) else [device_map]:
        kind, _, number = (f"cuda:{given}" if isinstance(given, int) else str(given)).partition(":")
        if kind in _ACCELERATORS and int(number or 0) >= getattr(torch, kind).device_count():
            raise UsageError("no-device", f"device_map: there is no {given!r} on this machine", "choose auto, or cpu")


def _broken(name: str, source: object, error: Exception) -> ModelError:
    hint = "it is no folder here, so the hub was asked" if isinstance(source, str) else "is the folder complete?"
    return ModelError("broken-backbone", f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}", hint)
