"""Tables: a file to its entries, each knowing its place. Nothing is guessed, and no cell becomes another."""

import csv
import json
import stat
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from llmad.errors import DataError

_SHOWN = 3  # wrong rows that are named; the others are counted
_ENCODING = "save the file as UTF-8"


@dataclass(frozen=True)
class Entry:
    """One entry of a file.

    Attributes:
        number: which row it is, counted from 1; blank lines are none.
        values: column to value.
        line: where it begins, counted from 1; None where lines mean nothing (JSON, Parquet, the hub).
    """

    number: int
    values: Mapping[str, Any]
    line: int | None = None


def entries(path: Path) -> list[Entry]:
    """The entries of a file, read as its ending says: .json (a list of objects), .jsonl, .csv, .tsv or .parquet.

    Raises:
        DataError: a file that is missing, empty, of another ending, or not what its ending says; with the line or row.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError("bad-data", f"{path}: its ending says nothing", f"rows are read from {', '.join(_READERS)}")
    return _some(str(path), reader(path))


def arrow_entries(source: str, table: Any) -> list[Entry]:
    """The entries of an Arrow table; `source` is what errors call it.

    Raises:
        DataError: no rows, a column that is there twice, or a value that Python cannot hold.
    """
    twice = _twice(table.column_names)
    if twice:
        raise DataError("bad-data", f"{source}: column {twice!r} is there twice")
    try:
        rows = table.to_pylist()
    except (ValueError, OverflowError, NotImplementedError) as error:  # text that is not UTF-8, dates out of range
        raise DataError("bad-data", f"{source} cannot be read: {' '.join(str(error).split())}") from None
    return _some(source, [Entry(number, row) for number, row in enumerate(rows, 1)])


def bad_rows(source: str, faults: Sequence[tuple[Entry, str]], hint: str = "") -> DataError:
    """The error that names the first faults, with their places, and counts the others.

    Args:
        source: the file.
        faults: at least one; what is said of an entry reads on after `row 7`.
        hint: the cure.
    """
    first = faults[0][0].line
    said = [
        f"row {entry.number}{'' if entry.line == first else f' (line {entry.line})'}{fault}"
        for entry, fault in faults[:_SHOWN]
    ]
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return DataError("bad-row", f"{source}{f':{first}' if first else ''}: {'; '.join(said)}{more}", hint)


def _some(source: str, found: list[Entry]) -> list[Entry]:
    if not found:
        raise DataError("empty-data", f"{source} holds no rows")
    return found


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never end, and a device never does
            raise DataError("bad-data", f"{path} cannot be read: it is no plain file", "save the rows in a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("no-data", f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError("bad-data", f"{path} cannot be read: {error}") from None


def _text(path: Path) -> str:
    raw = _bytes(path)
    if raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise DataError("bad-data", f"{path} cannot be read: it is UTF-16, not UTF-8", _ENCODING)
    raw = raw.removeprefix(BOM_UTF8)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        said = f"{path}:{line}: cannot be read: byte 0x{raw[error.start]:02x} is not UTF-8"
        raise DataError("bad-data", said, _ENCODING) from None


@dataclass(frozen=True)
class _Flaw:
    """Stands where Python's reader would let something through that is no JSON, until its row is known."""

    reason: str


def _object(pairs: Sequence[tuple[str, Any]]) -> Any:
    twice = _twice([key for key, _ in pairs])
    return dict(pairs) if twice is None else _Flaw(f"key {twice!r} is there twice")


def _constant(name: str) -> _Flaw:
    return _Flaw(f"{name} is no JSON")


def _parse(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        hint = "JSON Lines files end in .jsonl" if error.msg == "Extra data" else ""
        raise DataError("bad-data", f"{where}: not JSON: {error.msg} (column {error.colno})", hint) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise DataError("bad-data", f"{path}:{line}: {error}") from None


def _json(path: Path) -> list[Entry]:
    content = _parse(path, _text(path), 1)
    if not isinstance(content, list):
        raise DataError("bad-data", f"{path}: expected a list of rows", "JSON Lines files end in .jsonl")
    return _objects(path, [(None, value) for value in content])


def _json_lines(path: Path) -> list[Entry]:
    lines = _text(path).split("\n")  # and not splitlines, which also breaks at characters that JSON allows in text
    return _objects(path, [(line, _parse(path, text, line)) for line, text in enumerate(lines, 1) if text.strip()])


def _objects(path: Path, values: Sequence[tuple[int | None, Any]]) -> list[Entry]:
    found = [Entry(number, value, line) for number, (line, value) in enumerate(values, 1)]
    flaws = [(entry, flaw) for entry in found if (flaw := _flaw(entry.values))]
    if flaws:
        raise bad_rows(str(path), flaws)
    return found


def _flaw(row: Any) -> str | None:
    left = [row]
    while left:  # and not by recursion, which the depth of a file could exhaust
        value = left.pop()
        if isinstance(value, _Flaw):
            return f": {value.reason}"
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return None if isinstance(row, dict) else " is no object"


def _cells(path: Path, delimiter: str) -> list[Entry]:
    text = _text(path)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError("bad-data", f"{path}:{line}: a NUL character", _ENCODING)
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        records = list(_records(path, csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)))
    finally:
        csv.field_size_limit(limit)
    if not records:
        raise DataError("empty-data", f"{path} is empty", "its first line names the columns")
    (line, names), *rows = records
    _check_header(f"{path}:{line}", names)
    found = [Entry(number, dict(zip(names, row, strict=False)), line) for number, (line, row) in enumerate(rows, 1)]
    uneven = [
        (entry, f" has {len(row)} cells, the header {len(names)}")
        for entry, (_, row) in zip(found, rows, strict=True)
        if len(row) != len(names)
    ]
    if uneven:
        raise bad_rows(str(path), uneven, "a cell with a comma, a quote or a line break in it stands in double quotes")
    return found


def _records(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the line that it begins at."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "a quote inside a cell is written twice, and a quote that is opened is closed"
            raise DataError("bad-data", f"{path}:{line}: the row that begins here is broken: {error}", hint) from None
        if cells:
            yield line, cells


def _check_header(where: str, names: Sequence[str]) -> None:
    twice = _twice(names)
    if twice is not None and twice.strip():
        raise DataError("bad-data", f"{where}: column {twice!r} is there twice")
    if not all(name.strip() for name in names):
        raise DataError("bad-data", f"{where}: a column has no name", "pandas leaves its index out with index=False")
    if len(names) == 1:
        raise DataError("bad-data", f"{where}: there is one column, {names[0]!r}", "a .csv has commas, a .tsv tabs")


def _parquet(path: Path) -> list[Entry]:
    from pyarrow import ArrowException, BufferReader
    from pyarrow.parquet import ParquetFile

    raw = _bytes(path)
    try:
        table = ParquetFile(BufferReader(raw)).read()
    except (ArrowException, OSError) as error:
        raise DataError("bad-data", f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from None
    return arrow_entries(str(path), table)


_READERS: dict[str, Callable[[Path], list[Entry]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": partial(_cells, delimiter=","),
    ".tsv": partial(_cells, delimiter="\t"),
    ".parquet": _parquet,
}
