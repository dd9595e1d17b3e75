"""Files that appear whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmad.errors import StorageError


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, indented, with a final newline."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8."""
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it into place.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
    """
    with storing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            temporary.chmod(0o666 & ~_umask())  # mkstemp's files are private
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """What the system refuses inside the block is a StorageError about `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError("cannot-write", f"{path}: {error.strerror or error}") from None


def check_writable(folder: Path) -> None:
    """Refuse, before any work is done, a folder that could not be made or written later.

    Raises:
        StorageError: a file is in its way, or its nearest parent takes no new files.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    if not there.is_dir():
        raise StorageError("cannot-write", f"{folder}: {there} is in the way and is no directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError("cannot-write", f"{folder}: {there} may not be written")


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
