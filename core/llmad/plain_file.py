"""Plain files: what is in a stranger's directory is opened only where it is a file, not too large, and lies there."""

import stat
from pathlib import Path

from llmad.errors import ModelError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check(path: Path) -> int:
    """The size of a plain file in bytes. A link may stay in its directory, or lead to the blobs of the hub's cache.

    Raises:
        ModelError: it is missing, something else than a file, or a link out of its directory.
    """
    try:
        target, folder = path.resolve(strict=True), path.parent.resolve(strict=True)
        status = target.stat()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelError("broken-adapter", f"{path} cannot be read: {reason}") from None
    if not target.is_relative_to(folder) and target.parent != _blobs(folder):
        reason = f"{path} is a link that leads out of its directory"
        raise ModelError("link-outside", reason, "copy the directory with the files that its links lead to")
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ModelError("broken-adapter", f"{path} is {kind}, and no file")
    return status.st_size


def read(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes.

    Raises:
        ModelError: as `check` does, or it is larger, or cannot be read.
    """
    if (size := check(path)) > limit:
        raise ModelError("broken-adapter", f"{path} has {size:,} bytes; {limit:,} are enough")
    try:
        with path.open("rb") as stream:
            return stream.read(limit)
    except OSError as error:
        raise ModelError("broken-adapter", f"{path} cannot be read: {error.strerror}") from None


def _blobs(folder: Path) -> Path | None:
    """Where the hub's cache keeps the files of a snapshot."""
    return folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else None
