"""Lock: a folder that one process writes to is refused to every other one until the first has ended, or was killed."""

import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llmad.errors import LlmadWarning, StorageError
from llmad.files import storing

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder inside the block. The system lets go of it when its holder dies: a file left behind blocks nobody.

    Raises:
        StorageError: another process holds it, or the lock cannot be written.
    """
    path = folder / NAME
    with storing(path):
        handle = _take(path)
    try:
        yield
    finally:
        try:
            with suppress(OSError):
                path.unlink()  # while it is held, so that it is nobody else's
        finally:
            os.close(handle)


def _take(path: Path) -> int:
    """A handle of the lock file, locked; its holder may have deleted it while it was being opened."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, path)
            if _same(handle, path):
                os.truncate(handle, 0)
                os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        reason = f"{path.parent} is in use by {_holder(handle)}"
        raise StorageError("in-use", reason, "wait until it is over, or give another --output") from None
    except OSError as error:  # some network file systems have no locks
        reason = f"{path.parent} cannot be locked ({error.strerror}); see to it that no other run writes there"
        warnings.warn(reason, LlmadWarning, stacklevel=5)


def _holder(handle: int) -> str:
    try:
        known = json.loads(os.pread(handle, 1000, 0))
        return f"process {known['pid']} on {known['host']}"
    except (ValueError, KeyError, TypeError):  # it has not said so yet
        return "another process"


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
