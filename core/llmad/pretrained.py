"""Pretrained: a backbone by name, as a model with its tokenizer, or as a skeleton without weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmad import base_folder
from llmad.errors import ModelError, UsageError
from llmad.memory import enough_memory, is_shortage
from llmad.quantization import describe, prepare
from llmad.quantizer import UNQUANTISED
from llmad.recipe import DeviceMap
from llmad.registry import parse_quantizer
from llmad.source import find
from llmad.twin import hollow

_ACCELERATORS = ("cuda", "mps", "xpu")


class Recorded(str):
    """The name of a base as an adapter's record has it: a stranger's word, on which nothing is fetched."""

    __slots__ = ()


@dataclass(frozen=True)
class Pretrained:
    """A loaded backbone: the name it was asked by, the model in evaluation mode, and its tokenizer."""

    name: str
    model: Any
    tokenizer: Any


@enough_memory("choose dtype=bfloat16, quantise the base, or take a smaller one")
def load(
    name: str,
    dtype: str = "auto",
    device: torch.device | str = "cpu",
    device_map: DeviceMap = None,
    *,
    offload_folder: str | None = None,
    quantize: str | None = None,
) -> Pretrained:
    """Load a model and its tokenizer.

    Args:
        name: a built-in name with weights, a local Hugging Face folder, or a hub id (`owner/name`).
        dtype: of the weights; `auto` takes what they are stored in.
        device: where the model goes.
        device_map: where its parts go, as transformers' `from_pretrained` reads it; then `device` has no say.
        offload_folder: with `device_map`, where weights go that are kept on disk and not in the backbone's own files.
        quantize: the quantizer of the linear maps' weights; as they are stored where None.

    Raises:
        UsageError: no such backbone, device or quantizer, a backbone that is known by its shape only, or one to be
            quantised that is stored quantised already.
        ModelError: the folder is incomplete or broken.
    """
    source = _find(name)
    if isinstance(source, Mapping):
        raise UsageError(
            "no-weights",
            f"backbone {name!r} is known by its shape only",
            "give a local folder or a hub id with weights",
        )
    _check_files(name, source)
    how = _how(name, dtype, device, device_map, offload_folder, quantize)
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    safe = {"local_files_only": isinstance(source, Path), "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), **safe)
        model, report = AutoModelForCausalLM.from_pretrained(
            str(source), dtype=dtype, output_loading_info=True, use_safetensors=True, use_kernels=False, **safe, **how
        )
    except Exception as error:  # transformers raises many kinds for a broken folder
        if is_shortage(error):
            raise
        raise _broken(name, source, error) from None
    if missing := sorted(report["missing_keys"]):
        raise ModelError("broken-backbone", f"{name}: its weights lack {missing[0]} and {len(missing) - 1} others")
    # A hub model's own sampling and penalties would slip into answers that are meant to be greedy.
    model.generation_config = GenerationConfig()
    prepare(model)
    return Pretrained(name, (model if "device_map" in how else model.to(device)).eval(), tokenizer)


def _how(
    name: str,
    dtype: str,
    device: torch.device | str,
    device_map: DeviceMap,
    offload_folder: str | None,
    quantize: str | None,
) -> dict[str, Any]:
    """What `from_pretrained` is told of placement and quantisation."""
    _check_devices(device_map)
    stored, how = stored_quantization(name), dict[str, Any]()
    if stored and quantize:
        reason = f"{name} is stored quantised as {stored}, and cannot be quantised as {quantize} once more"
        raise UsageError("already-quantised", reason, "leave quantize out")
    if quantize:
        how["quantization_config"] = parse_quantizer(quantize).config(dtype)
    if stored or quantize:
        how["device_map"] = {"": device}  # a quantised model is quantised where it is to stay
    if device_map is not None:
        how |= {"device_map": device_map, "offload_folder": offload_folder}
    return how


def stored_quantization(name: str) -> str | None:
    """How the weights of a backbone are quantised where they are stored; None where they are plain.

    Raises:
        UsageError: no such backbone.
        ModelError: its config cannot be read.
    """
    config = getattr(_config(name), "quantization_config", None)
    return describe(config) if config else None


def generation_config(name: str) -> Any:
    """How the backbone wants its text generated, by its own word; transformers' defaults where it has none."""
    source = _find(name)
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(str(source), local_files_only=isinstance(source, Path))
    except OSError:
        return GenerationConfig()


def one_backbone(given: str | None, abouts: Iterable[Mapping[str, Any]]) -> str:
    """The one base of several adapters: the given one, or the one that all record, which is not fetched.

    Raises:
        UsageError: they do not name one.
    """
    names = {given or about.get("backbone") for about in abouts}
    name = names.pop()
    if name is None or names:
        raise UsageError("no-backbone", "the adapters do not name one backbone", "give --backbone")
    return given or Recorded(name)


def common_dtype(abouts: Iterable[Mapping[str, Any]]) -> str:
    """The dtype that adapters were trained with; the base's own where they differ or do not say."""
    dtypes = {str((about.get("recipe") or {}).get("dtype", "auto")) for about in abouts}
    return dtypes.pop() if len(dtypes) == 1 else "auto"


def common_quantization(name: str, abouts: Iterable[Mapping[str, Any]], given: str | None) -> str | None:
    """How to quantise the one base of several adapters: as given (`none`: not), or as it was when they were trained.

    Raises:
        UsageError: it was quantised in several ways.
    """
    if given is not None or stored_quantization(name):
        return None if given == UNQUANTISED else given
    found = {about.get("quantization") for about in abouts}
    if len(found) > 1:
        ways = " and ".join(sorted(str(way or UNQUANTISED) for way in found))
        reason = f"the adapters were trained on bases that are quantised in several ways: {ways}"
        raise UsageError("no-quantization", reason, f"give --quantize, with one of these or {UNQUANTISED}")
    return found.pop()


def skeleton(name: str) -> nn.Module:
    """The model on the meta device: shapes without weights, from a folder, a built-in shape or a hub id.

    Raises:
        UsageError: no such backbone.
        ModelError: its config cannot be read or built.
    """
    config = _config(name)
    from transformers import AutoModelForCausalLM

    try:
        with hollow():
            model: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise _broken(name, _find(name), error) from None
    return model


def _check_devices(device_map: DeviceMap) -> None:
    """Refuse a device that this machine does not have, before anything is loaded."""
    for given in device_map.values() if isinstance(device_map, Mapping) else [device_map]:
        kind, _, number = (f"cuda:{given}" if isinstance(given, int) else str(given)).partition(":")
        if kind in _ACCELERATORS and int(number or 0) >= getattr(torch, kind).device_count():
            raise UsageError("no-device", f"device_map: there is no {given!r} on this machine", "choose auto, or cpu")


def _find(name: str) -> Path | Mapping[str, Any] | str:
    """What a name stands for; a hub id that only an adapter's record names is looked up in the cache, and there alone.

    Raises:
        UsageError: no such backbone.
        ModelError: the record names a hub id that is not in the cache.
    """
    source = find(name)
    if not isinstance(source, str) or not isinstance(name, Recorded):
        return source
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except Exception:  # a name that is none, a cache without it: whatever it is, it is not here
        reason = f"the adapter says that its base is {name} on the hub, which was not downloaded before"
        raise ModelError(
            "not-downloaded", reason, f"give --backbone {name} to download it, or a folder that holds it"
        ) from None


def _check_files(name: str, source: Path | str) -> None:
    """Refuse a base that brings an adapter or pickles, before transformers opens it.

    Raises:
        ModelError: it does.
    """
    if isinstance(source, Path):
        base_folder.check(name, source)
        return
    from transformers.utils import find_adapter_config_file

    try:
        stray = find_adapter_config_file(source)
    except Exception as error:
        raise _broken(name, source, error) from None
    if stray:
        base_folder.check_plain(name, Path(stray).parent)


def _config(name: str) -> Any:
    source = _find(name)
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    try:
        if isinstance(source, Mapping):
            return AutoConfig.for_model(**source)
        offline = isinstance(source, Path)
        values, _ = PreTrainedConfig.get_config_dict(str(source), local_files_only=offline)
        base_folder.check_code(name, values, values.get("model_type") in CONFIG_MAPPING)
        return AutoConfig.from_pretrained(str(source), local_files_only=offline, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:
        raise _broken(name, source, error) from None


def _broken(name: str, source: object, error: Exception) -> ModelError:
    hint = "it is no folder here, so the hub was asked" if isinstance(source, str) else "is the folder complete?"
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if "ignore_mismatched_sizes" in said:  # transformers points to a table that it has printed
        said = "its weights have other shapes than config.json says"
    return ModelError("broken-backbone", f"{name}: {said}", hint)
