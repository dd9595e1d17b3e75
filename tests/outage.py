"""An outage: one call that changes the disk fails, or is the last that the process makes."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmad import adapter_copy, checkpoint, folder
from llmad.run_dir import RunDir

CALLS = "open mkdir fsync chmod replace rename unlink rmdir write truncate".split()


class Killed(BaseException):
    """The process is dead: nothing that it would still do, such as cleaning up, is done."""


@contextmanager
def outage(at: int | None = None, error: int | None = None) -> Iterator[list[str]]:
    """Count the calls that change the disk, and let the one numbered `at` fail.

    Args:
        at: which, from 0; None lets all pass. One that writes a file leaves half of it.
        error: the `errno` that the call fails with; where None, the process dies there.

    Yields:
        The names of the calls so far.
    """
    calls: list[str] = []
    own = os.getpid()

    def passing(name: str, function: Callable[..., Any], half: Callable[..., Any] | None = None) -> Any:
        def call(*words: Any, **more: Any) -> Any:
            if os.getpid() != own or (name == "open" and not _writes(*words, **more)):
                return function(*words, **more)
            calls.append(name)
            number = len(calls) - 1
            if at is not None and number == at and half:
                half(*words, **more)
            if at is not None and (number == at if error else number >= at):
                raise OSError(error, os.strerror(error)) if error else Killed(f"{number}: {name}")
            return function(*words, **more)

        return call

    with pytest.MonkeyPatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, passing(name, getattr(os, name)))
        patched.setattr(io, "open", passing("open", io.open))
        patched.setattr(Path, "write_bytes", passing("write_bytes", Path.write_bytes, _half_bytes))
        patched.setattr(RunDir, "log", passing("log", RunDir.log, _half_line))
        for module in (adapter_copy, checkpoint):
            patched.setattr(module, "save_file", passing("save_file", module.save_file, _half_tensors))
        if not error:  # the system's refusal is no error: the renames are done one after the other
            patched.setattr(folder, "_exchange", passing("exchange", folder._exchange))
        yield calls


def _writes(path: Any, mode: Any = "r", *_: Any, **__: Any) -> bool:
    return bool(mode & (os.O_WRONLY | os.O_RDWR)) if isinstance(mode, int) else mode[0] in "wax"


def _half_bytes(path: Path, content: bytes) -> None:
    with path.open("rb+") as stream:
        stream.write(content[: len(content) // 2])


def _half_line(run: RunDir, _: Any) -> None:
    with run.metrics.open("rb+") as stream:
        stream.seek(0, io.SEEK_END)
        stream.write(b'{"step": 1, "lo')


def _half_tensors(_: Any, path: Path, **__: Any) -> None:
    with path.open("rb+") as stream:
        stream.write(b"\0" * 100)
