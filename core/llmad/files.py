"""Files that appear whole or not at all, and are on the disk when they do."""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from llmad.errors import StorageError

PARTIAL, GONE = ".partial", ".gone"  # what is being written, and what is being deleted, under names with a dot first

_CURES = {
    errno.ENOSPC: "free space there and go on: what was saved before is whole",
    errno.EDQUOT: "free space within the quota and go on: what was saved before is whole",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "mount it to be written, or give another --output",
    errno.EACCES: "let this user write there, or give another --output",
    errno.EPERM: "let this user write there, or give another --output",
    errno.EIO: "the disk, or the way to it, is failing: see the system's log before it is trusted again",
}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, indented, with a final newline; see `write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, and read it back before it is put into place.

    Raises:
        StorageError: it cannot be written, or is not read back as it was; nothing is left behind.
    """

    def check(written: Path) -> None:
        if written.read_bytes() != text.encode():
            raise not_as_written(path)

    replace(path, lambda temporary: temporary.write_bytes(text.encode()), check)


def replace(path: Path, write: Callable[[Path], object], check: Callable[[Path], object] | None = None) -> None:
    """Let `write` fill a temporary file beside `path` and `check` read it back, then rename it into place.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
    """
    with storing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            temporary.chmod(0o666 & ~_umask())  # mkstemp's files are private, and safetensors' too
            sync(temporary)
            if check:
                check(temporary)
            temporary.replace(path)
            sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def make(folder: Path) -> None:
    """Make a folder and the ones that it lies in, and see them on the disk.

    Raises:
        StorageError: it cannot be made.
    """
    with storing(folder):
        new = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for one in new:
            sync(one.parent)


def sync(path: Path) -> None:
    """Wait until the disk has a file or a folder; what is then read of a file comes from the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        if path.is_file() and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Take away what a killed process left half written or half deleted in a folder.

    Raises:
        StorageError: it cannot be deleted.
    """
    with storing(folder):
        for path in [path for path in folder.glob(".*") if is_leftover(path)]:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def is_leftover(path: Path) -> bool:
    """Whether a path is of something half written or half deleted."""
    return path.name.startswith(".") and path.suffix in (PARTIAL, GONE)


def not_as_written(path: Path, what: str = "") -> StorageError:
    """The error for what the disk gives back otherwise than it was given."""
    reason = f"{path} does not hold what was written{f': {what}' if what else ''}"
    return StorageError("not-as-written", reason, _CURES[errno.EIO])


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """What the system refuses inside the block is a StorageError about `path`, with what would help."""
    try:
        yield
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "")
        raise StorageError("cannot-write", f"{path}: {error.strerror or error}", cure) from None
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        cure = _CURES.get(int(found[1]), "") if found else ""
        raise StorageError("cannot-write", f"{path}: {error}", cure) from None


def check_writable(folder: Path) -> None:
    """Refuse, before any work is done, a folder that could not be made or written later.

    Raises:
        StorageError: a file is in its way, or its nearest parent takes no new files.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    if not there.is_dir():
        raise StorageError("cannot-write", f"{folder}: {there} is in the way and is no directory")
    if not os.access(there, os.W_OK | os.X_OK):
        cure = _CURES[errno.EACCES]
        raise StorageError("cannot-write", f"{folder}: {there} may not be written", cure)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
