"""The tensors of an adapter, in a safetensors file: its header is checked before anything is allocated.

8 bytes: length of the header | header: JSON, name -> dtype, shape, begin and end | the values, without a gap
"""

from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from llmad import plain_file, strict_json
from llmad.errors import ModelError
from llmad.spec import Tensors

_LONGEST_HEADER = 16 << 20  # bytes; some hundred thousand tensors
_METADATA = "__metadata__"
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def outlines(path: Path) -> Tensors:
    """The tensors that the header tells of, on the meta device: names, dtypes and shapes without values.

    Raises:
        ModelError: there is no such file, or its header and its size cannot be right.
    """
    size = plain_file.check(path)
    entries, values = _header(path, size)
    found = {name: _outline(path, name, entry) for name, entry in entries.items() if name != _METADATA}
    _check_places(path, {name: entries[name]["data_offsets"] for name in found}, values)
    for name, tensor in found.items():
        begin, end = entries[name]["data_offsets"]
        if end - begin != tensor.numel() * tensor.element_size():
            _refuse(path, f"{name}: {end - begin:,} bytes are no {tuple(tensor.shape)} of {entries[name]['dtype']}")
    return found


def read(path: Path) -> Tensors:
    """The tensors, once `outlines` has passed the file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        _refuse(path, f"it cannot be read: {error}")


def _header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header, and how many bytes of values the file has."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            _refuse(path, f"{size:,} bytes are too few for its header: it is cut off, or no safetensors file")
        if length > _LONGEST_HEADER:
            _refuse(path, f"it claims a header of {length:,} bytes; {_LONGEST_HEADER:,} are enough")
        text = stream.read(length)
    try:
        header = strict_json.parse(text)
    except ValueError as error:
        _refuse(path, f"its header is broken: {error}")
    if not isinstance(header, dict):
        _refuse(path, "its header is no JSON object")
    about = header.get(_METADATA, {})
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        _refuse(path, f"{_METADATA} is no table of texts")
    return header, size - 8 - length


def _outline(path: Path, name: str, entry: Any) -> torch.Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"{name} has not dtype, shape and data_offsets alone")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
        _refuse(path, f"{name} has dtype {entry['dtype']!r}; there is: {', '.join(_DTYPES)}")
    shape, places = entry["shape"], entry["data_offsets"]
    if not _counts(shape) or not _counts(places) or len(places) != 2 or prod(shape) >= 1 << 48:
        _refuse(path, f"{name} has shape {shape!r} at {places!r}, which cannot be")
    return torch.empty(shape, dtype=_DTYPES[entry["dtype"]], device="meta")


def _counts(values: Any) -> bool:
    whole = isinstance(values, list) and all(type(value) is int for value in values)
    return whole and len(values) <= 16 and all(0 <= value < 1 << 48 for value in values)


def _check_places(path: Path, places: dict[str, list[int]], size: int) -> None:
    """The values follow one another from the first byte to the last: none is shared, hidden or missing."""
    ordered = sorted(places.values())
    edges = [[0, 0], *ordered, [size, size]]
    if any(begin > end for begin, end in ordered) or any(one[1] != other[0] for one, other in pairwise(edges)):
        told = sum(end - begin for begin, end in ordered)
        _refuse(
            path, f"its header tells of {told:,} bytes of values and it has {size:,}, or they overlap or leave gaps"
        )


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ModelError("broken-adapter", f"{path}: {reason}")
