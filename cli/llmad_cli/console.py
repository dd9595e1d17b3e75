"""What is printed, and how: text from outside is never read as markup."""

import json
import os
import signal
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmad.stopping import Stopped


class Stream(Console):
    """A stream that nobody reads to its end stops the command, as a signal would."""

    def on_broken_pipe(self) -> None:
        """Say no more, and end.

        Raises:
            Stopped: by SIGPIPE, always.
        """
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)
        raise Stopped(signal.SIGPIPE)


out = Stream(markup=False, highlight=False, emoji=False)
err = Stream(stderr=True, markup=False, highlight=False, emoji=False)
# What a terminal obeys or hides: controls; marks that turn the direction of text round or have no width; tags. The two
# joiners stay, since Persian, Hindi and joined emoji are written with them.
_HIDDEN = [0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF]
_HIDDEN += [*range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)]
_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160)) if chr(number) not in "\n\t"}
_CONTROLS |= {number: f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}" for number in _HIDDEN}
_IN_JSON = {number: json.dumps(chr(number))[1:-1] for number in _CONTROLS if number > 31}


def inert(text: object) -> str:
    """Text whose control and hidden characters are shown, and not obeyed by the terminal."""
    return str(text).translate(_CONTROLS)


def complain(message: str, hint: str, code: str) -> None:
    """Print an error: what and where, the cure, the code; a line each, never wrapped."""
    err.print(Text.assemble(("error: ", "bold red"), inert(message), (f"  [{code}]", "dim")), soft_wrap=True)
    if hint:
        err.print(Text.assemble(("hint: ", "bold"), inert(hint)), soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning on the error stream."""
    err.print(Text.assemble(("warning: ", "bold yellow"), inert(message)), soft_wrap=True)


def print_json(content: Any) -> None:
    """Print JSON for machines: nothing else goes to the output stream."""
    say(json.dumps(content, indent=2, ensure_ascii=False).translate(_IN_JSON))


def say(text: str) -> None:
    """Print text as it stands, and see it out."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        out.on_broken_pipe()


def print_rows(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """Print rows as a table on a terminal, and as tab-separated lines elsewhere."""
    if not out.is_terminal:
        for row in rows:
            say("\t".join(_cell(row[key]) for key in columns))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns.values():
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[key])) for key in columns))
    out.print(table)


def _cell(value: Any) -> str:
    """One cell, on one line: tabs and line breaks would tear the table."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return inert(" ".join(text.splitlines()).replace("\t", " "))
