"""Fingerprint of a base: the same for the same weights, in whatever floating-point dtype they are held.

A quantised base has the fingerprint of the plain one but for the values that it no longer has: these are left open,
and agree with any. Of a base whose linear maps are all quantised the embedding, the head and the norms still speak.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from llmad.placement import stored
from llmad.quantization import sizes

_SAMPLES = 32  # values a tensor; enough to tell two trainings apart, few enough to cost nothing
_LAYOUT = "names and shapes"


def fingerprint(model: nn.Module) -> dict[str, str | None]:
    """SHA-256 sums of the base, adapters left out: one of its names and shapes, one of each kind of parameter's values.

    A kind is a name without its numbers, so that the layers share one: `model.layers.*.mlp.up_proj.weight`. It holds a
    spread of values, rounded to bfloat16, so that a float32 base and its bfloat16 copy agree; None where any of the
    kind is quantised.
    """
    layout, kinds = sha256(), dict[str, list[Tensor] | None]()
    tied = getattr(model, "all_tied_weights_keys", {})  # offloading may make them parameters of their own
    for name, shape, parameter in sorted(sizes(model), key=lambda entry: entry[0]):
        offloaded = parameter is not None and parameter.is_meta
        if ".adapters." in f".{name}" or (offloaded and name in tied):
            continue
        layout.update(f"{name}{sorted(shape)}".encode())  # sorted: a quantised weight may be kept transposed
        kind = re.sub(r"\b\d+\b", "*", name)
        values = kinds.setdefault(kind, [])
        if parameter is None:
            kinds[kind] = None
        elif values is not None:
            values.append(_values(stored(model, name) if offloaded else parameter))
    return {_LAYOUT: layout.hexdigest()} | {kind: None if own is None else _sum(own) for kind, own in kinds.items()}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first thing in which two fingerprints cannot be of one base; empty where there is none."""
    there = ((kind, one.get(kind, ""), other.get(kind, "")) for kind in {**one, **other})
    return next((kind for kind, here, that in there if here != that and None not in (here, that)), "")


def _sum(values: list[Tensor]) -> str:
    return sha256(torch.cat(values).view(torch.int16).numpy().tobytes()).hexdigest()


def _values(parameter: Tensor) -> Tensor:
    """A spread of values, in bfloat16; none of a parameter that has no weights, or is no floating-point number."""
    if not parameter.is_floating_point() or parameter.device.type == "meta":
        return torch.empty(0, dtype=torch.bfloat16, device="cpu")
    flat = parameter.detach().reshape(-1)
    step = max(1, flat.numel() // _SAMPLES)
    return flat[: step * _SAMPLES : step].to(torch.bfloat16).cpu()
