"""The adapter directory: `adapter_config.json`, `adapter_model.safetensors`, `llmad.json`. JSON and tensors only.

`adapter_config.json` and the tensors are in PEFT's layout where the method has one, so that PEFT and the servers
that read it can use them; `llmad.json` adds what strict loading needs: sites, base, plugin, prompt.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from llmad import tensor_file
from llmad.adapter_copy import copied
from llmad.attachment import build, check, detach, mount, state
from llmad.errors import LlmadError, LlmadWarning, ModelError, UsageError
from llmad.filling import check_outlines, fill
from llmad.fingerprint import difference, fingerprint
from llmad.match import select
from llmad.quantization import quantization
from llmad.record import ABOUT, BUILT_ON, CONFIG, WEIGHTS, built_on, read_about, read_config
from llmad.registry import registry
from llmad.site import Site
from llmad.spec import AdapterSpec

__all__ = ["ABOUT", "BUILT_ON", "CONFIG", "WEIGHTS", "load", "read_about", "run_adapter", "save"]

# What says for whom or by whom the file was written, and not what is computed.
_REMARKS = {"base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"}


def save(
    model: nn.Module,
    path: str | Path,
    name: str = "default",
    about: Mapping[str, Any] | None = None,
    built_on: Sequence[str] = (),
) -> Path:
    """Write an adapter to a directory; each file appears whole or not at all.

    Args:
        model: the model that has the adapter.
        path: the directory; made if it is not there.
        name: the adapter's name on the model.
        about: more to record in `llmad.json`, such as the prompt and the recipe.
        built_on: the adapters that it was trained on top of, in order; they are written with it, in `built_on`.

    Raises:
        UsageError: no adapter has that name.
        StorageError: the directory cannot be written.
    """
    return copied(model, name, about, built_on).write(Path(path))


def load(
    model: nn.Module,
    path: str | Path,
    name: str = "default",
    trainable: bool = False,
    check_base: bool = True,
) -> nn.Module:
    """Attach an adapter from a directory; strict both ways: every tensor has its place, every place its tensor.

    An adapter that was trained on top of others brings them along, frozen and under the names that they had. One that
    was trained on the same base quantised in another way, or not at all, is loaded with a warning.

    Args:
        model: the base that the adapter was trained on.
        path: a directory that `save` wrote, or a PEFT directory of a method that llmad knows.
        name: the adapter's name on the model.
        trainable: whether its parameters require gradients.
        check_base: refuse a base whose weights are not those that the adapter was trained on.

    Raises:
        ModelError: the directory is incomplete or broken, or does not belong to this model; nothing is changed.
    """
    folder = Path(path)
    about = read_about(folder)
    with _all_or_none(model):
        for other in about.get("built_on", ()):
            load(model, built_on(folder, other), other, check_base=check_base)
        return _load(model, folder, about, name, trainable, check_base)


@contextmanager
def _all_or_none(model: nn.Module) -> Iterator[None]:
    """Take out again what was attached inside the block if something goes wrong there."""
    before = list(state(model).adapters)
    try:
        yield
    except BaseException:
        for name in reversed([name for name in state(model).adapters if name not in before]):
            detach(model, name)
        raise


def _load(
    model: nn.Module, folder: Path, about: dict[str, Any], name: str, trainable: bool, check_base: bool
) -> nn.Module:
    spec = _spec(folder, about)
    chosen = _chosen(model, spec, folder)
    check(model, spec, chosen, name)
    if about:
        _check_base(model, folder, about, chosen, check_base)
        _say_quantization(model, folder, about)
    weights = _weights(folder)
    check_outlines(spec, chosen, tensor_file.outlines(weights), weights)
    modules = build(model, spec, chosen)
    config = fill(modules, spec, tensor_file.read(weights), weights)
    if about:
        _check_config(folder, config)
    for module in modules.values():
        module.requires_grad_(trainable)
    return mount(model, spec, modules, name)


def run_adapter(folder: Path) -> Path:
    """A run directory stands for the adapter in it."""
    inside = folder / "adapter"
    return inside if os.path.isdir(inside) else folder  # noqa: PTH112  pathlib's raises where the name is too long


def _spec(folder: Path, about: dict[str, Any]) -> AdapterSpec:
    plugin = about.get("plugin")
    origin = plugin if isinstance(plugin, dict) else {}
    distribution = origin.get("distribution")
    try:
        if not about:
            return _foreign_spec(folder)
        name = f"{distribution}:{about['method']}" if distribution else about["method"]
        return registry().adapter(name, about["options"])
    except LlmadError as error:
        wanted = f" (it was written with {distribution} {origin.get('version')})" if distribution else ""
        raise ModelError(error.code, f"{folder}: {error}{wanted}", error.hint) from None


def _foreign_spec(folder: Path) -> AdapterSpec:
    config = read_config(folder)
    try:
        for method in registry().methods():  # the built-ins come first, and are not shadowed
            if method.reads_peft(config):
                return method.from_peft(config)
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # a value of another kind than PEFT's
        raise ModelError("foreign-adapter", f"{CONFIG} cannot be read as PEFT's: {error}") from None
    raise ModelError("foreign-adapter", f"no method reads {CONFIG} of peft_type {config.get('peft_type')!r}")


def _weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.exists() and not path.is_symlink():
        pickled = (folder / WEIGHTS).with_suffix(".bin").exists()
        hint = "its pickled weights are never read; write them as safetensors where you trust them" if pickled else ""
        raise ModelError("broken-adapter", f"{folder} has no {WEIGHTS}", hint)
    return path


def _check_config(folder: Path, wanted: Mapping[str, Any]) -> None:
    """PEFT reads this file where llmad reads the record: they must mean the same."""
    found, due = (
        {key: value for key, value in config.items() if key not in _REMARKS}
        for config in (read_config(folder), json.loads(json.dumps(wanted)))
    )
    for key in [*due, *found]:
        if key not in found or key not in due or found[key] != due[key]:
            words = f"{key} is {found.get(key)!r}; by {ABOUT} it is {due.get(key)!r}"
            raise ModelError("other-config", f"{folder / CONFIG}: {words}", "restore the file that was changed")


def _chosen(model: nn.Module, spec: AdapterSpec, folder: Path) -> list[Site]:
    """The sites; a selector that matches nothing is the directory's fault here, not the user's."""
    try:
        return select(model, spec)
    except UsageError as error:
        raise ModelError("other-base", f"{folder}: {error}", error.hint) from None


def _check_base(model: nn.Module, folder: Path, about: dict[str, Any], chosen: list[Site], strict: bool) -> None:
    wanted, found = about["sites"], [site.describe() for site in chosen]
    for there, here in zip(wanted, found, strict=False):
        if there != here:
            raise ModelError(
                "other-base",
                f"{folder}: trained at {_in_words(there)}; this model has {_in_words(here)}",
                "load the base that the adapter was trained on",
            )
    if len(wanted) != len(found):
        raise ModelError("other-base", f"{folder}: trained at {len(wanted)} sites; this model has {len(found)} such")
    base = about["base"]
    if strict and (differs := _difference(base.get("fingerprint"), about.get("quantization"), model)):
        raise ModelError(
            "other-base",
            f"{folder}: it was trained on another {base.get('model_type')} base; the weights differ ({differs})",
            "load that base, or pass check_base=False to use the adapter on this one all the same",
        )


def _difference(recorded: Any, quantised: str | None, model: nn.Module) -> str:
    """In what the base is not the recorded one; empty where it is. Only a quantised base leaves kinds open."""
    if not isinstance(recorded, dict) or (None in recorded.values() and not quantised):
        return "its fingerprint cannot be read"
    return difference(recorded, fingerprint(model))


def _say_quantization(model: nn.Module, folder: Path, about: dict[str, Any]) -> None:
    """Tell that the base has other rounding errors than the one that the adapter was trained to make up for."""
    there, here = about.get("quantization"), quantization(model)
    if there != here:
        words = f"{folder}: it was trained on a base {_quantised(there)}; this one is {_quantised(here)}"
        warnings.warn(words, LlmadWarning, stacklevel=4)


def _quantised(how: Any) -> str:
    return f"quantised as {how}" if how else "not quantised"


def _in_words(site: Any) -> str:
    known = site if isinstance(site, dict) else {}
    return f"{known.get('path')} ({known.get('in_features')} to {known.get('out_features')})"
