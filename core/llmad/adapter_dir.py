"""The adapter directory: `adapter_config.json`, `adapter_model.safetensors`, `llmad.json`. JSON and tensors only.

`adapter_config.json` and the tensors are in PEFT's layout where the method has one, so that PEFT and the servers
that read it can use them; `llmad.json` adds what strict loading needs: sites, base, plugin, prompt.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmad.attachment import attached, build, detach, mount, plan, state
from llmad.errors import LlmadError, LlmadWarning, ModelError, StorageError, UsageError, nearest
from llmad.files import replace, write_json
from llmad.fingerprint import difference, fingerprint
from llmad.match import select
from llmad.module import AdapterModule
from llmad.quantization import quantization
from llmad.registry import registry
from llmad.site import Site
from llmad.spec import AdapterSpec, Tensors

FORMAT = 1
_RECORD = {"method": str, "options": dict, "sites": list, "base": dict}  # what `llmad.json` must hold
CONFIG, WEIGHTS, ABOUT, BUILT_ON = "adapter_config.json", "adapter_model.safetensors", "llmad.json", "built_on"


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
    own, folder = attached(model, name), Path(path)
    config, named = own.spec.export(_tensors(own.modules))
    origin = registry().origin(type(own.spec))
    record = {
        "format": FORMAT,
        "method": own.spec.name,
        "options": own.spec.options(),
        "sites": [site.describe() for site in own.modules],
        "base": {"model_type": _model_type(model), "fingerprint": fingerprint(model)},
        "quantization": quantization(model),
        "plugin": {"distribution": origin.distribution, "version": origin.version} if origin else None,
        "built_on": list(built_on),
        **(about or {}),
    }
    for other in built_on:
        save(model, folder / BUILT_ON / other, other)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / WEIGHTS, lambda temporary: save_file(named, temporary, metadata={"format": "pt"}))
        write_json(folder / CONFIG, config)
        write_json(folder / ABOUT, record)
    except (OSError, SafetensorError) as error:
        raise StorageError("cannot-write", f"{folder}: {getattr(error, 'strerror', None) or error}") from None
    return folder


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
            load(model, folder / BUILT_ON / str(other), str(other), check_base=check_base)
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
    _check_fit(model, spec, folder)
    chosen = plan(model, spec, name)
    if about:
        _check_base(model, folder, about, chosen, check_base)
        _say_quantization(model, folder, about)
    tensors = _read_tensors(folder)
    modules = build(model, spec, chosen)
    _fill(modules, spec, tensors, folder)
    for module in modules.values():
        module.requires_grad_(trainable)
    return mount(model, spec, modules, name)


def content(model: nn.Module, name: str = "default") -> Tensors:
    """The tensors that `save` writes for an adapter, as copies on the CPU.

    Raises:
        UsageError: no adapter has that name.
    """
    own = attached(model, name)
    return own.spec.export(_tensors(own.modules))[1]


def run_adapter(folder: Path) -> Path:
    """A run directory stands for the adapter in it."""
    return folder / "adapter" if (folder / "adapter").is_dir() else folder


def read_about(folder: Path) -> dict[str, Any]:
    """What `llmad.json` says; empty where the directory is another tool's.

    Raises:
        ModelError: it is no adapter directory, or written by a newer llmad.
    """
    if not (folder / CONFIG).is_file():
        raise ModelError("no-adapter", f"{folder} is no adapter directory: it has no {CONFIG}")
    if not (folder / ABOUT).is_file():
        return {}
    about = _read_json(folder / ABOUT)
    if about.get("format") != FORMAT:
        raise ModelError(
            "other-format",
            f"{folder / ABOUT}: format {about.get('format')!r}; this llmad reads {FORMAT}",
            "update llmad",
        )
    for key, kind in _RECORD.items():
        if not isinstance(about.get(key), kind):
            raise ModelError("broken-adapter", f"{folder / ABOUT}: {key!r} is missing or not a {kind.__name__}")
    if not isinstance(about.get("built_on", []), list):
        raise ModelError("broken-adapter", f"{folder / ABOUT}: 'built_on' is no list")
    if not isinstance(about.get("quantization"), str | None):
        raise ModelError("broken-adapter", f"{folder / ABOUT}: 'quantization' is no text")
    return about


def _tensors(modules: Mapping[Site, AdapterModule]) -> list[tuple[Site, Tensors]]:
    """Copies on the CPU, which share no memory: safetensors refuses tensors that do."""
    return [
        (site, {key: tensor.detach().cpu().contiguous().clone() for key, tensor in own.items()})
        for site, own in _owned(modules).items()
    ]


def _owned(modules: Mapping[Site, AdapterModule]) -> dict[Site, Tensors]:
    """The tensors of each module; one that is held several times belongs to the first who holds it."""
    seen: set[int] = set()
    owned: dict[Site, Tensors] = {}
    for site, module in modules.items():
        owned[site] = {}
        for key, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                owned[site][key] = tensor
                seen.add(id(tensor))
    return owned


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
    config = _read_json(folder / CONFIG)
    for method in registry().methods():  # the built-ins come first, and are not shadowed
        if method.reads_peft(config):
            return method.from_peft(config)
    raise ModelError("foreign-adapter", f"no method reads {CONFIG} of peft_type {config.get('peft_type')!r}")


def _check_fit(model: nn.Module, spec: AdapterSpec, folder: Path) -> None:
    """A selector that matches nothing is the directory's fault here, not the user's."""
    try:
        select(model, spec)
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
    if strict and (differs := _difference(base.get("fingerprint"), model)):
        raise ModelError(
            "other-base",
            f"{folder}: it was trained on another {base.get('model_type')} base; the weights differ ({differs})",
            "load that base, or pass check_base=False to use the adapter on this one all the same",
        )


def _difference(recorded: Any, model: nn.Module) -> str:
    """In what the base is not the recorded one; empty where it is."""
    return difference(recorded, fingerprint(model)) if isinstance(recorded, dict) else "its fingerprint cannot be read"


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


def _read_tensors(folder: Path) -> Tensors:
    try:
        return load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise ModelError("broken-adapter", f"{folder} has no {WEIGHTS}") from None
    except (SafetensorError, OSError) as error:
        raise ModelError("broken-adapter", f"{folder / WEIGHTS} cannot be read: {error}") from None


def _fill(modules: dict[Site, AdapterModule], spec: AdapterSpec, tensors: Tensors, folder: Path) -> None:
    """Put tensors into built modules, or name the first that does not fit."""
    try:
        given = spec.restore(list(modules), tensors)
    except (LookupError, RuntimeError, ValueError) as error:
        raise ModelError("broken-adapter", f"{folder / WEIGHTS} is no {spec.name} of these sites: {error}") from None
    for site, wanted in _owned(modules).items():
        for key, tensor in wanted.items():
            _check_tensor(f"{folder / WEIGHTS}: {site.label}:{key}", given[site].get(key), tensor)
        if extra := sorted(given[site].keys() - wanted.keys()):
            raise ModelError("extra-tensor", f"{folder / WEIGHTS}: {site.label}:{extra[0]} has no place")
        modules[site].load_state_dict(given[site], strict=False)  # a shared tensor is another site's to load
    _check_nothing_lost(modules, spec, tensors, folder / WEIGHTS)


def _check_nothing_lost(modules: dict[Site, AdapterModule], spec: AdapterSpec, tensors: Tensors, where: Path) -> None:
    """What would be written now must be what was read: no name, no row and no number fell by the way."""
    _, again = spec.export(_tensors(modules))
    if strangers := sorted(tensors.keys() - again.keys()):
        raise ModelError("extra-tensor", f"{where}: {strangers[0]} has no place", nearest(strangers[0], list(again)))
    for key, tensor in tensors.items():
        _check_tensor(f"{where}: {key}", tensor, again[key])
        found, wanted = again[key], tensor.to(again[key])
        same = torch.allclose(found, wanted, 1e-4, 1e-5) if key in spec.derived() else torch.equal(found, wanted)
        if not same:
            raise ModelError("extra-tensor", f"{where}: {key} holds values that have no place")


def _check_tensor(where: str, given: Tensor | None, wanted: Tensor) -> None:
    if given is None:
        raise ModelError("missing-tensor", f"{where} is missing")
    if given.shape != wanted.shape:
        raise ModelError("misshapen-tensor", f"{where} has shape {tuple(given.shape)}, not {tuple(wanted.shape)}")
    if not bool(torch.isfinite(given).all()):
        raise ModelError("not-finite", f"{where} holds values that are not finite")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError("broken-adapter", f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ModelError("broken-adapter", f"{path} is not a JSON object")
    return content


def _model_type(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", ""))
