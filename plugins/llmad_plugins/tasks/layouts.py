"""What the conversions of data sets share: an entry in a set's own layout, and the row that it becomes."""

from collections.abc import Callable, Mapping
from typing import Any

Entry = Mapping[str, Any]
Row = dict[str, str]
Convert = Callable[[Entry], Row | None]
"""The row (`instruction`, `input`, `output`, `answer`) of an entry; None of one in another layout.

It raises ValueError where an entry of the layout makes no row, such as one whose right answer is hidden.
"""


def has_texts(entry: Entry, *names: str) -> bool:
    """Whether the entry has text in all of these fields."""
    return all(isinstance(entry.get(name), str) for name in names)


def first_of(*converts: Convert) -> Convert:
    """A conversion that takes an entry in any of several layouts."""

    def convert(entry: Entry) -> Row | None:
        rows = (one(entry) for one in converts)
        return next((row for row in rows if row), None)

    return convert
