"""Rows: from a file, or from a task that makes its own; every one validated before a model is loaded."""

import json
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from llmad.errors import DataError, nearest
from llmad.prompt import Row
from llmad.task import Split, Task

_NEEDED = {"train": ("instruction", "output"), "test": ("instruction", "answer")}
_NEVER_EMPTY = {"train": ("instruction",), "test": ("instruction", "answer")}
_SHOWN = 3  # wrong rows that are named; the others are counted


def rows(task: Task, split: Split, data: str | None, count: int, seed: int) -> list[Row]:
    """The rows of a task's split: from `data` where given, else generated, `count` of them.

    Raises:
        DataError: a file that is missing, empty or malformed, or rows that lack a field.
    """
    if data is None:
        return list(task.rows(split, count, seed))
    path = Path(data)
    return read(_file_in(path, task, split) if path.is_dir() else path, split)


def read(path: Path, split: Split) -> list[Row]:
    """Read a JSON list, or JSON Lines, of objects with text in `instruction`, `input`, `output`, `answer`.

    Training rows need `instruction` and `output`, test rows `instruction` and `answer`. The paper's training file has
    rows whose output is empty, so some may be; they teach the end of the text alone.

    Raises:
        DataError: with the file, and the row counted from 1.
    """
    entries = _entries(path)
    if not entries:
        raise DataError("empty-data", f"{path} holds no rows")
    faults = [fault for number, entry in enumerate(entries, 1) for fault in _faults(number, entry, split)]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise DataError("bad-row", f"{path}: {'; '.join(faults[:_SHOWN])}{more}", _hint(entries))
    if split == "train" and not any(entry["output"].strip() for entry in entries):
        raise DataError("empty-data", f"{path}: every row's output is empty: there is nothing to learn")
    return [{key: str(value) for key, value in entry.items()} for entry in entries]


def fingerprint(rows: Sequence[Row]) -> str:
    """A short sum of the rows: two runs on rows with the same fingerprint learn from the same text."""
    return sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()[:16]


def _file_in(folder: Path, task: Task, split: Split) -> Path:
    if split not in task.files:
        raise DataError("no-data", f"task {task.name} has no {split} file in a folder", "give --data a file")
    path = folder / task.files[split]
    if not path.is_file():
        raise DataError("no-data", f"{path}: there is no such file; task {task.name} looks for it in {folder}")
    return path


def _entries(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError("no-data", f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("bad-data", f"{path} cannot be read: {error}") from None
    if path.suffix == ".jsonl":
        lines = text.split("\n")  # and not splitlines, which also breaks at characters that JSON allows in text
        return [_parse(path, line, number) for number, line in enumerate(lines, 1) if line.strip()]
    content = _parse(path, text, 1)
    if not isinstance(content, list):
        raise DataError("bad-data", f"{path}: expected a list of rows", "JSON Lines files end in .jsonl")
    return content


def _parse(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise DataError("bad-data", f"{where}: not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise DataError("bad-data", f"{path}:{line}: {error}") from None


def _faults(number: int, entry: Any, split: Split) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"row {number} is no object"
        return
    for field in _NEEDED[split]:
        if field not in entry:
            yield f"row {number} has no field {field!r}"
    for field in ("instruction", "input", "output", "answer"):
        value = entry.get(field, "")
        if not isinstance(value, str) and not (field == "answer" and _is_number(value)):
            yield f"row {number}: {field} is {type(value).__name__}, not text"
        elif field in _NEVER_EMPTY[split] and field in entry and not str(value).strip():
            yield f"row {number}: {field} is empty"
        elif re.search(r"[\ud800-\udfff]", str(value)):
            yield f"row {number}: {field} holds half a character (a lone surrogate)"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _hint(entries: Sequence[Any]) -> str:
    keys = sorted({str(key) for entry in entries if isinstance(entry, dict) for key in entry})
    return (
        f"rows have {', '.join(keys[:8])}; wanted are instruction, input, output, answer" if keys else nearest("", [])
    )
