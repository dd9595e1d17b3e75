"""Memory: how much of it is free, and what to do when there is too little."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
from torch import nn

from llmad.errors import OutOfMemoryError

_GROUP = Path("/sys/fs/cgroup")  # of a container, whose limit is its own
_ON_CPU = ("not enough memory", "can't allocate memory", "std::bad_alloc")  # words of torch's allocators


@contextmanager
def enough_memory(cure: str) -> Iterator[None]:
    """Say what to do when memory is short inside the block, or the decorated function: the accelerator's or the CPU's.

    Raises:
        OutOfMemoryError: with `cure` as its hint.
    """
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        said = " ".join(str(error).split())[:300] or "there is not enough memory"
        raise OutOfMemoryError("out-of-memory", said, cure) from None


def is_shortage(error: Exception) -> bool:
    """Whether an error says that memory is short; torch has a kind of its own for the accelerators' alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ON_CPU)


def free(model: nn.Module) -> int | None:
    """Bytes that are free where a model lies, on all of its devices together; None where a device does not tell."""
    devices = {parameter.device for parameter in model.parameters() if not parameter.is_meta}
    found = [_free(device) for device in devices]
    return None if None in found else sum(one for one in found if one is not None)


def _free(device: torch.device) -> int | None:
    if device.type == "cpu":
        return int(min(psutil.virtual_memory().available, _within_group()))
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's, for the next tensors
    return torch.cuda.mem_get_info(device)[0] + kept


def _within_group() -> float:
    """What a container leaves; without end where there is none, or no limit."""
    try:
        most, taken = ((_GROUP / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        return max(0, int(most) - int(taken))
    except (OSError, ValueError):  # no such file, or the word for no limit
        return float("inf")
