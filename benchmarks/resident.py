"""Resident: what a process has in memory, as Linux tells it, for benchmarks that measure memory."""

import ctypes
import gc
from pathlib import Path

_STATUS, _PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def now() -> int:
    """Bytes of this process that are in memory."""
    return _line("VmRSS")


def peak() -> int:
    """The most bytes that there were at once since the process began, or since `start`."""
    return _line("VmHWM")


def start() -> int:
    """Let the peak start anew, from what is returned: the bytes that are there now."""
    _PEAK.write_text("5", encoding="ascii")
    return now()


def give_back() -> None:
    """Give the system what was freed and is kept for later use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _line(key: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))
