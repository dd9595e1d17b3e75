"""Columns: which column of a file is which field of a row. Layouts are data; a column that is near is not guessed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from llmad.errors import DataError, UsageError, nearest
from llmad.table import Entry
from llmad.task import Split

Layout = Literal["instruction", "completion", "chat", "task", "generated"]
Given = Mapping[str, str]  # wanted column to the one that the file has instead

WANTED = ("instruction", "input", "output", "answer", "prompt", "completion", "messages")
_NEEDED: dict[Split, tuple[str, ...]] = {
    "train": ("instruction", "output", "messages"),
    "test": ("instruction", "answer", "messages"),
}


@dataclass(frozen=True)
class Shape:
    """A layout: the column that each field of a row is in.

    Attributes:
        layout: its name.
        fields: field to column.
        hidden: fields whose column was given to another.
    """

    layout: Layout
    fields: Mapping[str, str]
    hidden: frozenset[str] = frozenset()

    def needed(self, split: Split) -> list[str]:
        """The columns without which an entry is no row of a split."""
        return [column for field, column in self.fields.items() if field in _NEEDED[split]]

    def lacking(self, entry: Entry, split: Split) -> list[str]:
        """The needed columns that an entry has not."""
        there = self.cells(entry)
        return [column for field, column in self.fields.items() if field in _NEEDED[split] and field not in there]

    def cells(self, entry: Entry) -> dict[str, Any]:
        """Field to what an entry has in its column."""
        values = entry.values
        return {
            field: values[column]
            for field, column in self.fields.items()
            if column in values and field not in self.hidden
        }


OWN = Shape("task", {field: field for field in ("instruction", "input", "output", "answer")})
_SHAPES = (
    replace(OWN, layout="instruction"),
    Shape("completion", {"instruction": "prompt", "output": "completion", "answer": "answer"}),
    Shape("chat", {"messages": "messages", "answer": "answer"}),
    Shape("chat", {"messages": "conversations", "answer": "answer"}),
)


def parse(text: str) -> dict[str, str]:
    """Read `instruction=question,output=solution`.

    Raises:
        ValueError: a part without an equals sign, a wanted column named twice, or what `check` finds.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    for wanted, equals, column in pairs:
        if not (wanted.strip() and equals and column.strip()):
            raise ValueError(f"{text!r} is not WANTED=COLUMN,..., such as instruction=question")
    given = {wanted.strip(): column.strip() for wanted, _, column in pairs}
    if len(given) < len(pairs):
        raise ValueError(f"{text!r} names a column twice")
    return check(given)


def check(given: dict[str, str]) -> dict[str, str]:
    """The same columns.

    Raises:
        ValueError: an unknown wanted column, two of one column, or wanted columns that no one layout has.
    """
    for wanted in given:
        if wanted not in WANTED:
            raise ValueError(f"there is no column {wanted!r} to map; {nearest(wanted, list(WANTED))}")
    if len(set(given.values())) < len(given):
        raise ValueError("one column is given for two")
    if not _open(given):
        raise ValueError(f"{' and '.join(given)} are of different layouts")
    return given


Mapped = Annotated[
    dict[str, str],
    BeforeValidator(lambda given: parse(given) if isinstance(given, str) else given),
    AfterValidator(check),
]  # columns as a recipe has them: a table, or the text that the command line takes


def shape(source: str, entries: Sequence[Entry], split: Split, given: Given) -> Shape | None:
    """The one layout that entries of a file are in; None where no entry is whole in any.

    Raises:
        UsageError: a given column that no row has, or that would take the place of another.
        DataError: two layouts.
    """
    _check_given(source, _names(entries), given)
    whole: dict[int, Entry] = {}  # of each shape, the first entry that is whole in it
    shapes = _open(given)
    for entry in entries:
        for place, candidate in enumerate(shapes):
            if place not in whole and not candidate.lacking(entry, split):
                whole[place] = entry
    if len(whole) > 1:
        said = [f"row {entry.number} has {', '.join(shapes[at].needed(split))}" for at, entry in whole.items()]
        column = shapes[next(iter(whole))].needed(split)[0]
        hint = f"part the file, or say which is meant, such as --columns {_wanted(column)}={column}"
        raise DataError("two-layouts", f"{source}: two layouts in one file: {'; '.join(said[:2])}", hint)
    return next((shapes[place] for place in whole), None)


def likeliest(entries: Sequence[Entry], split: Split, given: Given) -> Shape:
    """The layout that the columns come nearest to, for the error to speak of."""
    names = _names(entries)
    near = {_plain(name) for name in names}
    return max(_open(given), key=lambda one: sum(_plain(column) in near for column in one.needed(split)))


def check_near(source: str, entries: Sequence[Entry], split: Split, one: Shape) -> None:
    """Refuse a column that is all but a wanted one, where the wanted one is missing: nothing is dropped in silence.

    Raises:
        DataError: with the option that maps it.
    """
    wanted_ones = [column for field, column in one.fields.items() if field == "input" or column in one.needed(split)]
    found: dict[str, str] = {}
    for names in dict.fromkeys(tuple(entry.values) for entry in entries):
        for column in (column for column in wanted_ones if column not in names):
            near = [name for name in names if _plain(name) == _plain(column) and name not in one.fields.values()]
            found |= {column: near[0]} if near else {}
    if found:
        wanted, near_one = next(iter(found.items()))
        pairs = ",".join(f"{_wanted(column)}={name}" for column, name in found.items())
        said = f"{source}: there is a column {near_one!r} and none {wanted!r}"
        raise DataError("near-column", said, f"--columns '{pairs}' if that is meant; rename it if not")


def hint(entries: Sequence[Entry], split: Split, one: Shape) -> str:
    """What the rows have, what is wanted, and how to say which is which."""
    names = _names(entries)
    lacking = [column for column in one.needed(split) if column not in names]
    if not names:
        return ""
    example = ""
    if lacking:
        close = get_close_matches(lacking[0], names, n=1) or ["NAME"]
        example = f"; map one with --columns {_wanted(lacking[0])}={close[0]}"
    return f"rows have {', '.join(sorted(names)[:8])}; wanted are {', '.join(one.fields.values())}{example}"


def _open(given: Given) -> list[Shape]:
    """The layouts that can be meant, with the given columns in place."""
    return [_with(one, given) for one in _SHAPES if set(given) <= set(one.fields.values())]


def _with(one: Shape, given: Given) -> Shape:
    """A layout with given columns; one that is given for another column loses its own meaning."""
    hidden = {field for field, column in one.fields.items() if column not in given and column in given.values()}
    fields = {field: given.get(column, column) for field, column in one.fields.items()}
    return Shape(one.layout, fields, frozenset(hidden))


def _check_given(source: str, names: list[str], given: Given) -> None:
    for wanted, column in given.items():
        if column not in names:
            said = f"columns: {source}: no row has a column {column!r}"
            raise UsageError("no-column", said, nearest(column, names))
        if wanted in names and wanted != column and wanted not in given.values():
            said = f"columns: {source} has a column {wanted!r} already; {column!r} cannot stand for it"
            raise UsageError("two-columns", said, f"rename it in the file, or map it to its own, as {wanted}={wanted}")


def _names(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(str(name) for entry in entries for name in entry.values))


def _plain(name: str) -> str:
    """A name without what people vary: case, marks, the plural."""
    return re.sub(r"[^a-z0-9]", "", name.casefold()).rstrip("s")


def _wanted(column: str) -> str:
    return "messages" if column == "conversations" else column
