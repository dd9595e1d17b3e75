"""Rows: from a file, the hub, or a task that makes its own; every one validated before a model is loaded."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

from llmad import columns, conversation, hub
from llmad.columns import Given, Layout, Shape
from llmad.errors import DataError, UsageError
from llmad.prompt import Row
from llmad.table import Entry, bad_rows
from llmad.table import entries as entries
from llmad.task import Split, Task

_NEVER_EMPTY = {"train": ("instruction",), "test": ("instruction", "answer")}
_IN_CHAT = {"instruction": "a user's message", "output": "a reply", "context": "an earlier message"}


@dataclass(frozen=True)
class Loaded:
    """The rows of a split, and what they were.

    Attributes:
        rows: with text in `instruction` and, as the split needs and the data has, `input`, `output`, `answer`; those of
            a chat also have `context`, the messages before as JSON text.
        layout: `instruction` (the paper's columns), `completion` (`prompt` and `completion`), `chat` (messages), `task`
            (the task's own, converted) or `generated`.
        conversations: how many conversations the rows of a chat come from.
    """

    rows: list[Row]
    layout: Layout
    conversations: int = 0


def rows(task: Task, split: Split, data: str | None, count: int, seed: int, given: Given | None = None) -> Loaded:
    """The rows of a task's split: from `data` where given, else generated, `count` of them.

    Args:
        task: what is asked.
        split: `train` or `test`.
        data: a file, a folder with the task's file, or a place on the hub as `hub.place` reads it.
        count: how many rows to generate.
        seed: of the generator.
        given: wanted column to the one that the data has instead.

    Raises:
        DataError: data that is missing, empty or malformed, or rows that lack a field.
        UsageError: `given` does not fit the columns, or the place on the hub is not pinned.
    """
    if data is None:
        if given:
            raise UsageError("no-data", f"columns: the rows of task {task.name} are generated", "give --data too")
        return Loaded(list(task.rows(split, count, seed)), "generated")
    if hub.is_place(data):
        place = hub.place(data, task, split)
        return _loaded(hub.name(place), hub.entries(place), split, task, given or {})
    path = Path(data)
    return read(_file_in(path, task, split) if path.is_dir() else path, split, task, given)


def read(path: Path, split: Split, task: Task | None = None, given: Given | None = None) -> Loaded:
    """Read a file of rows: `table.entries` says which files, `columns` which layouts.

    Training rows need what is learnt, test rows an answer. The paper's training file has rows whose output is empty,
    so some may be; they teach the end of the text alone.

    Raises:
        DataError: with the file, and the row counted from 1.
        UsageError: `given` does not fit the columns.
    """
    return _loaded(str(path), entries(path), split, task, given or {})


def fingerprint(rows: Sequence[Row]) -> str:
    """A short sum of the rows: two runs on rows with the same fingerprint learn from the same text."""
    return sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()[:16]


def both_splits(data: str | None) -> bool:
    """Whether data has training and test rows, each in its place, and not one of them alone."""
    if data is None:
        return True
    return hub.names_no_split(data) if hub.is_place(data) else Path(data).is_dir()


def _file_in(folder: Path, task: Task, split: Split) -> Path:
    if split not in task.files:
        raise DataError("no-data", f"task {task.name} has no {split} file in a folder", "give --data a file")
    path = folder / task.files[split]
    if not path.is_file():
        raise DataError("no-data", f"{path}: there is no such file; task {task.name} looks for it in {folder}")
    return path


def _loaded(source: str, found: list[Entry], split: Split, task: Task | None, given: Given) -> Loaded:
    shape, drafts = _drafts(source, found, split, task, given)
    faults = [
        (entry, fault)
        for entry, draft in zip(found, drafts, strict=True)
        for fault in dict.fromkeys([*draft.faults, *_faults(draft.rows, shape, split)])
    ]
    if faults:
        raise bad_rows(source, faults, "" if shape is columns.OWN else columns.hint(found, split, shape))
    made = [{field: str(value) for field, value in row.items()} for draft in drafts for row in draft.rows]
    if split == "train" and not any(row["output"].strip() for row in made):
        raise DataError("empty-data", f"{source}: every row's output is empty: there is nothing to learn")
    return Loaded(list(made), shape.layout, len(found) if shape.layout == "chat" else 0)


@dataclass(frozen=True)
class _Draft:
    """What an entry becomes, its values unchecked, and what is wrong with it already."""

    rows: list[dict[str, Any]]
    faults: list[str]


def _drafts(
    source: str, found: Sequence[Entry], split: Split, task: Task | None, given: Given
) -> tuple[Shape, list[_Draft]]:
    """The paper's columns come first, then the task's own layout, then the others."""
    shape = columns.shape(source, found, split, given)
    if not given and (shape is None or shape.layout != "instruction"):
        own = _converted(found, task, split)
        if own:
            return columns.OWN, own
    shape = shape or columns.likeliest(found, split, given)
    columns.check_near(source, found, split, shape)
    return shape, [_draft(entry, shape, split) for entry in found]


def _draft(entry: Entry, shape: Shape, split: Split) -> _Draft:
    cells = shape.cells(entry)
    faults = [f" has no field {column!r}" for column in shape.lacking(entry, split)]
    if "messages" not in cells:
        return _Draft([cells], faults)
    try:
        made = conversation.rows(cells["messages"], split)
    except ValueError as error:
        return _Draft([], [*faults, f": {shape.fields['messages']}: {error}"])
    answer = {"answer": cells["answer"]} if split == "test" and "answer" in cells else {}
    return _Draft([row | answer for row in made], faults)


def _converted(found: Sequence[Entry], task: Task | None, split: Split) -> list[_Draft]:
    """Entries in the task's own layout; none where the task knows none of them."""
    if task is None or task.convert is None:
        return []
    drafts = [_own(entry, task, split) for entry in found]
    unknown = _Draft([], [f" is not in the layout of task {task.name}"])
    return [draft or unknown for draft in drafts] if any(drafts) else []


def _own(entry: Entry, task: Task, split: Split) -> _Draft | None:
    assert task.convert is not None
    try:
        row = task.convert(entry.values)
    except ValueError as error:
        return _Draft([], [f": {error}"])
    except (KeyError, TypeError, AttributeError, IndexError):  # not written with such an entry in mind
        return None
    return None if row is None else _draft(Entry(entry.number, row), columns.OWN, split)


def _faults(rows: Sequence[Mapping[str, Any]], shape: Shape, split: Split) -> Iterator[str]:
    for row in rows:
        for field, value in row.items():
            name = shape.fields.get(field) or _IN_CHAT[field]
            if field == "answer" and _is_number(value):
                if isinstance(value, float) and not isfinite(value):
                    yield f": {name} is {value}, and no number"
            elif not isinstance(value, str):
                yield f": {name} is {type(value).__name__}, not text"
            elif field in _NEVER_EMPTY[split] and not value.strip():
                yield f": {name} is empty"
            elif re.search(r"[\ud800-\udfff]", value):
                yield f": {name} holds half a character (a lone surrogate)"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
