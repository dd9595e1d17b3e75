"""Filling: tensors into the modules of an adapter, strict both ways: every tensor has its place, and the reverse."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from llmad.errors import LlmadError, ModelError, nearest
from llmad.module import AdapterModule
from llmad.site import Site
from llmad.spec import AdapterSpec, Tensors
from llmad.twin import hollow

Held = dict[Site, Tensors]  # what each module holds, by its names


def copies(modules: Mapping[Site, AdapterModule]) -> list[tuple[Site, Tensors]]:
    """The tensors on the CPU, sharing no memory: safetensors refuses tensors that do."""
    return [
        (site, {key: tensor.detach().cpu().contiguous().clone() for key, tensor in own.items()})
        for site, own in _owned(modules).items()
    ]


def check_outlines(spec: AdapterSpec, sites: Sequence[Site], tensors: Tensors, where: Path) -> None:
    """Refuse tensors of other shapes than the method's, before memory is taken for either.

    Args:
        spec: of the method.
        sites: where it is to sit.
        tensors: on the meta device, so that only names, dtypes and shapes are compared.
        where: their file.

    Raises:
        ModelError: with the first that does not fit.
    """
    try:
        with hollow():
            modules = spec.assemble(sites)
    except LlmadError:
        raise
    except Exception:  # sizes that no tensor can have, or a method that wants values: building it will tell
        return
    _check_forms(_owned(modules), _restored(spec, sites, tensors, where), where)


def fill(modules: dict[Site, AdapterModule], spec: AdapterSpec, tensors: Tensors, where: Path) -> dict[str, object]:
    """Put tensors into built modules; returns the `adapter_config.json` that belongs to them.

    Raises:
        ModelError: with the first that does not fit, or is not finite.
    """
    held, given = _owned(modules), _restored(spec, list(modules), tensors, where)
    _check_forms(held, given, where)
    for site, own in held.items():
        if extra := sorted(given[site].keys() - own.keys()):
            raise ModelError("extra-tensor", f"{where}: {site.label}:{extra[0]} has no place")
        for key, tensor in own.items():
            _check_finite(f"{where}: {site.label}:{key}", given[site][key], tensor)
            tensor.detach().copy_(given[site][key])
    return _check_nothing_lost(held, spec, tensors, where)


def _restored(spec: AdapterSpec, sites: Sequence[Site], tensors: Tensors, where: Path) -> Held:
    try:
        return spec.restore(sites, tensors)
    except (LookupError, RuntimeError, ValueError) as error:
        raise ModelError("broken-adapter", f"{where} is no {spec.name} of these sites: {error}") from None


def _owned(modules: Mapping[Site, AdapterModule]) -> Held:
    """The tensors of each module; one that is held several times belongs to the first who holds it."""
    seen: set[int] = set()
    owned: Held = {}
    for site, module in modules.items():
        owned[site] = {}
        for key, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                owned[site][key] = tensor
                seen.add(id(tensor))
    return owned


def _check_nothing_lost(held: Held, spec: AdapterSpec, tensors: Tensors, where: Path) -> dict[str, object]:
    """What would be written now must be what was read: no name, no row and no number fell by the way."""
    written = [(site, {key: tensor.detach().cpu() for key, tensor in own.items()}) for site, own in held.items()]
    config, again = spec.export(written)
    if strangers := sorted(tensors.keys() - again.keys()):
        raise ModelError("extra-tensor", f"{where}: {strangers[0]} has no place", nearest(strangers[0], list(again)))
    derived = spec.derived()
    for key, tensor in tensors.items():
        found, at = again[key], f"{where}: {key}"
        _check_form(at, tensor, found)
        if key not in derived and torch.equal(found, tensor.to(found)):
            continue  # and finite, as all that is held was found to be
        _check_finite(at, tensor, found)
        if key not in derived or not torch.allclose(found, tensor.to(found), 1e-4, 1e-5):
            raise ModelError("extra-tensor", f"{at} holds values that have no place")
    return config


def _check_forms(held: Held, given: Held, where: Path) -> None:
    for site, own in held.items():
        for key, tensor in own.items():
            _check_form(f"{where}: {site.label}:{key}", given[site].get(key), tensor)


def _check_form(where: str, given: Tensor | None, wanted: Tensor) -> None:
    if given is None:
        raise ModelError("missing-tensor", f"{where} is missing")
    if given.shape != wanted.shape:
        raise ModelError("misshapen-tensor", f"{where} has shape {tuple(given.shape)}, not {tuple(wanted.shape)}")
    if given.dtype != wanted.dtype and not (given.is_floating_point() and wanted.is_floating_point()):
        found, due = (str(tensor.dtype).removeprefix("torch.") for tensor in (given, wanted))
        raise ModelError("wrong-dtype", f"{where} is of {found}, not {due}")


def _check_finite(where: str, given: Tensor, wanted: Tensor) -> None:
    """The values must be finite as they will be held; one that is not leaves NaN where it is taken from itself."""
    held = given.to(wanted.dtype)
    if held.is_floating_point() and (held - held).any():
        raise ModelError("not-finite", f"{where} holds values that are not finite")
