"""Folder: a whole folder that appears, is replaced and goes away at once, whenever the process is killed."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmad.files import GONE, PARTIAL, storing, sync

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextmanager
def appearing(final: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; after the block it is synced and stands at `final`, in place of what was there.

    Raises:
        StorageError: it cannot be written; what was at `final` is still there.
    """
    temporary = final.with_name(f".{final.name}{PARTIAL}")
    with storing(final):
        _remove(temporary)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                sync(path)
            _put(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # on a full disk its room is wanted
            raise


def discard(folder: Path) -> None:
    """Delete a folder; one that is half deleted no longer has its name.

    Raises:
        StorageError: it cannot be deleted.
    """
    gone = folder.with_name(f".{folder.name}{GONE}")
    with storing(folder):
        _remove(gone)
        folder.rename(gone)
        sync(folder.parent)
        shutil.rmtree(gone)


def _put(temporary: Path, final: Path) -> None:
    """Rename into place, and delete what was there once the disk has the new name."""
    aside = final.with_name(f".{final.name}{GONE}")
    if not final.exists():
        temporary.rename(final)
    elif not _exchange(temporary, final):
        _remove(aside)
        final.rename(aside)
        try:
            temporary.rename(final)
        except OSError:
            aside.rename(final)
            raise
    sync(final.parent)
    _remove(temporary)
    _remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders trade names in one step; False where the system cannot."""
    rename: Any = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
