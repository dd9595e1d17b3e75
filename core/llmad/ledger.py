"""Ledger: what a run has paid for so far, a line each, on the disk before the next is asked for.

The first line says what the run is; only a run that is the same goes on with it.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmad.errors import ResumeError
from llmad.files import storing


@dataclass(frozen=True)
class Ledger:
    """A file of JSON lines, the journal."""

    path: Path

    def open(self, identity: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Begin the journal, or go on with it: the entries so far, without a last line that was torn.

        Raises:
            ResumeError: it is of another run, or no journal.
            StorageError: it cannot be read or written.
        """
        with storing(self.path):
            text = self.path.read_bytes() if self.path.exists() else b""
            *lines, _ = text.split(b"\n")
            if len(lines) < 2:  # nothing was paid for yet: whose it was does not matter
                self.path.unlink(missing_ok=True)
                lines.clear()
            elif not text.endswith(b"\n"):
                os.truncate(self.path, text.rfind(b"\n") + 1)
        if not lines:
            self.add([identity])
            return []
        known, *entries = [self._entry(line, number) for number, line in enumerate(lines, 1)]
        self._compare(known, identity)
        return entries

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write entries and wait until the disk has them.

        Raises:
            StorageError: it cannot be written.
        """
        with storing(self.path), self.path.open("ab") as stream:
            stream.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
            stream.flush()
            os.fsync(stream.fileno())

    def remove(self) -> None:
        """Its work is done.

        Raises:
            StorageError: it cannot be removed.
        """
        with storing(self.path):
            self.path.unlink()

    def _entry(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise ResumeError(
                "broken-journal", f"{self.path}:{number}: no line of a journal", "remove it to begin anew"
            )
        return entry

    def _compare(self, known: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        names = [name for name in {**known, **identity} if known.get(name) != identity.get(name)]
        if names:
            then = ", ".join(f"{name} {known.get(name)}, now {identity.get(name)}" for name in names)
            hint = "give what was given then, choose another --output, or remove the journal to begin anew"
            raise ResumeError("other-run", f"{self.path} is of another run: {then}", hint)
