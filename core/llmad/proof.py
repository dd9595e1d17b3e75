"""Proof that the disk holds what memory holds, bit for bit, before anything says so."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from llmad.files import not_as_written


def check_tensors(path: Path, held: Mapping[str, Tensor]) -> None:
    """Read a file of tensors back and compare it with those that were written.

    Raises:
        StorageError: the first tensor that differs, or the file cannot be read.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise not_as_written(path, str(error)) from None
    for name in {**held, **found}:
        if name not in held or name not in found or not same(held[name], found[name]):
            raise not_as_written(path, name)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits; -0.0 is not 0.0 here, and NaN may be NaN."""
    return (one.shape, one.dtype) == (other.shape, other.dtype) and torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
