"""Memory: how much of it is free, and what to do when there is too little."""

import os
import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
from torch import nn

from llmad.errors import OutOfMemoryError

_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # a container has a limit of its own
_MAPS = Path("/proc/self/maps")
_FILES = {  # by kind of group: its limit, what is taken, and what of that is files that may be dropped
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
_EDGE, _MOST = "MALLOC_MMAP_THRESHOLD_", 2**25  # glibc's; the most that it rises to on its own (malloc/malloc.c)
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


def given_back() -> int:
    """Bytes of a block from which on glibc gives it back when it is freed; smaller ones it keeps for later use."""
    told = os.environ.get(_EDGE, "")
    return min(int(told), _MOST) if told.isdecimal() else _MOST


def free(model: nn.Module) -> int | None:
    """Bytes that are free where a model lies, on all of its devices together; None where a device does not tell."""
    devices = {parameter.device for parameter in model.parameters() if not parameter.is_meta}
    found = [_free(device) for device in devices]
    return None if None in found else sum(one for one in found if one is not None)


def mapped(model: nn.Module) -> int:
    """Bytes of a model's weights that are pages of its file, which the system counts as free."""
    files = sorted(_file_maps())
    found = [one for one in model.parameters() if one.device.type == "cpu" and _within(files, one.data_ptr())]
    return sum({one.data_ptr(): one.nbytes for one in found}.values())


def _file_maps() -> Iterator[tuple[int, int]]:
    """From where to where files are mapped into this process' memory."""
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return
    for edges, _, _, _, inode, *_ in map(str.split, lines):
        if inode != "0":
            start, end = (int(edge, 16) for edge in edges.split("-"))
            yield start, end


def _within(ranges: list[tuple[int, int]], place: int) -> bool:
    before = bisect_right(ranges, (place, sys.maxsize)) - 1
    return before >= 0 and ranges[before][0] <= place < ranges[before][1]


def _free(device: torch.device) -> int | None:
    if device.type == "cpu":
        left = (_left(group, *names) for kind, names in _FILES.items() for group in _groups(kind))
        return int(min(psutil.virtual_memory().available, *left))
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's, for the next tensors
    return torch.cuda.mem_get_info(device)[0] + kept


def _groups(kind: str) -> list[Path]:
    """The folders of this process' group and of those above it, each of which may have a limit."""
    try:
        lines = [line.split(":", 2) for line in _OWN.read_text(encoding="ascii").splitlines()]
        place = next(Path(path.strip("/")) for _, kinds, path in lines if kind in kinds.split(","))
    except (OSError, ValueError, StopIteration):  # no Linux, or no such group
        place = Path()
    return [_GROUPS / kind / part for part in (place, *place.parents)]


def _left(group: Path, limit: str, taken: str, files: str) -> float:
    """What a group leaves; without end where there is no such group, or no limit."""
    try:
        most, now = (int((group / name).read_text(encoding="ascii")) for name in (limit, taken))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # no such file, or the word for no limit
        return float("inf")
    return max(0, most - now + int(stat.get(files, 0)))
