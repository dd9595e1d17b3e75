"""Tables: every format gives the same entries, exactly as they stand; each fault has its twin that is read."""

import csv
import json
import os
from contextlib import suppress
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from llmad.errors import DataError
from llmad.table import Entry, arrow_entries, bad_rows, entries

GOOD = {"instruction": "1 + 1?", "output": "2"}
LINE = json.dumps(GOOD)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def values(path):
    return [dict(entry.values) for entry in entries(path)]


def save_parquet(path, columns, **types):
    arrays = {name: pa.array(cells, types.get(name)) for name, cells in columns.items()}
    parquet.write_table(pa.table(arrays), path)
    return path


READ = {
    "a list": ("rows.json", f"[{LINE}, {LINE}]"),
    "a list with a mark and CRLF": ("rows.json", f"\ufeff[{LINE},\r\n{LINE}]\r\n"),
    "lines": ("rows.jsonl", f"{LINE}\n{LINE}"),
    "lines with a mark, CRLF and a blank one": ("rows.jsonl", f"\ufeff{LINE}\r\n\r\n{LINE}\r\n"),
    "an ending in capitals": ("rows.JSONL", f"{LINE}\n{LINE}\n"),
    "cells": ("rows.csv", "instruction,output\n1 + 1?,2\n1 + 1?,2\n"),
    "cells with a mark, CRLF and a blank line": ("rows.csv", '\ufeffinstruction,output\r\n"1 + 1?",2\r\n\r\n1 + 1?,2'),
    "tabs": ("rows.tsv", "instruction\toutput\n1 + 1?\t2\n1 + 1?\t2\n"),
    "a name with a pattern in it": ("d[v2]*?.jsonl", f"{LINE}\n{LINE}\n"),
}


@pytest.mark.parametrize(("name", "content"), READ.values(), ids=READ.keys())
def test_a_file_is_read_as_its_ending_says(write, name, content):
    (write("d2.jsonl", "no JSON"), write("dv.jsonl", "no JSON"))
    assert values(write(name, content)) == [GOOD, GOOD]


def test_parquet_is_read(tmp_path):
    path = save_parquet(tmp_path / "output=3.parquet", {"instruction": ["1 + 1?"] * 2, "output": ["2"] * 2})
    assert values(path) == [GOOD, GOOD]


def test_entries_know_their_places(write):
    assert [(entry.number, entry.line) for entry in entries(write("a.json", f"[{LINE},\n{LINE}]"))] == [
        (1, None),
        (2, None),
    ]
    assert [(entry.number, entry.line) for entry in entries(write("a.jsonl", f"\n{LINE}\n\n{LINE}"))] == [
        (1, 2),
        (2, 4),
    ]
    text = 'instruction,output\n"1\n+\r\n1?",2\n\n3,4\n'
    assert [(entry.number, entry.line) for entry in entries(write("a.csv", text))] == [(1, 2), (2, 6)]


@pytest.mark.parametrize("cell", ["NA", "null", "None", "nan", "007", "1.0", "1e5", "", " ", "TRUE", "2020-01-01", "é"])
def test_a_cell_stays_the_text_that_it_is(write, cell):
    assert values(write("a.csv", f"instruction,output\n{cell},{cell}\n")) == [{"instruction": cell, "output": cell}]


def test_a_cell_may_hold_whatever_is_quoted(write):
    cell = 'a "b", c\nd\r\ne\tf'
    quoted = cell.replace('"', '""')
    assert values(write("a.csv", f'instruction,output\n"{quoted}",x\n'))[0]["instruction"] == cell


def test_a_cell_may_be_long(write):
    long, limit = "x" * 200_000, csv.field_size_limit()
    assert values(write("a.csv", f"instruction,output\n{long},2\n"))[0]["instruction"] == long
    assert csv.field_size_limit() == limit


def test_arrow_types_of_text_and_numbers_are_read(tmp_path):
    cells = {"large": ["a"], "dictionary": ["b"], "view": ["c"], "number": [2.5], "whole": [2**62], "exact": ["1.50"]}
    types = {
        "large": pa.large_string(),
        "dictionary": pa.dictionary(pa.int8(), pa.string()),
        "view": pa.string_view(),
    }
    cells["exact"] = [Decimal("1.50")]
    assert values(save_parquet(tmp_path / "a.parquet", cells, **types)) == [
        {"large": "a", "dictionary": "b", "view": "c", "number": 2.5, "whole": 2**62, "exact": Decimal("1.50")}
    ]


def test_lists_of_structs_are_lists_of_objects(tmp_path):
    messages = [{"role": "user", "content": "1?"}]
    assert values(save_parquet(tmp_path / "a.parquet", {"messages": [messages]})) == [{"messages": messages}]


HEAD = "instruction,output\n"
FAULTS = {
    # name, bad bytes, what is said, and the twin that is read
    "ending": ("a.txt", LINE, "its ending says nothing", None),
    "no ending": ("a", LINE, "its ending says nothing", None),
    "Latin-1 JSON": (
        "a.json",
        '[{"output":\n"é"}]'.encode("latin-1"),
        "a.json:2: cannot be read: byte 0xe9 is not UTF-8",
        '[{"output":\n"é"}]',
    ),
    "Latin-1 JSON Lines": ("a.jsonl", f"{LINE}\n".encode() + b'{"a":"\xe9"}', "a.jsonl:2: ", f'{LINE}\n{{"a":"é"}}'),
    "Latin-1 CSV": ("a.csv", f"{HEAD}caf".encode() + b"\xe9,2", "a.csv:2: cannot be read: byte", f"{HEAD}café,2"),
    "UTF-16 JSON": ("a.json", f"[{LINE}]".encode("utf-16"), "it is UTF-16", f"[{LINE}]"),
    "UTF-16 CSV": ("a.csv", f"{HEAD}1,2".encode("utf-16"), "it is UTF-16", f"{HEAD}1,2"),
    "UTF-16 CSV without a mark": ("a.csv", f"{HEAD}1,2".encode("utf-16-le"), "a.csv:1: a NUL", f"{HEAD}1,2"),
    "JSON Lines called JSON": ("a.json", f"{LINE}\n{LINE}", "a.json:2: not JSON: Extra data", f"[{LINE},\n{LINE}]"),
    "a key twice": ("a.json", '[{"a": "1"}, {"a": "1", "a": "2"}]', "row 2: key 'a' is there twice", '[{"a": "1"}]'),
    "a key twice in a line": ("a.jsonl", f'\n{LINE}\n{{"a": 1, "a": 1}}', "a.jsonl:3: row 2: key 'a'", f"\n{LINE}"),
    "a key twice inside": ("a.json", '[{"a": [{"b": 1, "b": 1}]}]', "row 1: key 'b' is there twice", '[{"a": []}]'),
    "NaN": ("a.json", '[{"a": NaN}]', "row 1: NaN is no JSON", '[{"a": "NaN"}]'),
    "Infinity": ("a.jsonl", '{"a": [-Infinity]}', "a.jsonl:1: row 1: -Infinity is no JSON", '{"a": [-1]}'),
    "a row of another kind": ("a.jsonl", f"{LINE}\n5", "a.jsonl:2: row 2 is no object", f"{LINE}\n{{}}"),
    "empty JSON Lines": ("a.jsonl", "\n\n", "a.jsonl holds no rows", LINE),
    "empty CSV": ("a.csv", "\n", "a.csv is empty", f"{HEAD}1,2"),
    "a header alone": ("a.csv", HEAD, "a.csv holds no rows", f"{HEAD}1,2"),
    "too few cells": ("a.csv", f"{HEAD}1,2\n3\n", "a.csv:3: row 2 has 1 cells, the header 2", f"{HEAD}1,2\n3,4\n"),
    "too many cells": ("a.csv", f"{HEAD}1,2,3\n", "a.csv:2: row 1 has 3 cells, the header 2", f'{HEAD}1,"2,3"\n'),
    "a blank that is a cell": ("a.csv", f"{HEAD} \n1,2", "a.csv:2: row 1 has 1 cells", f"{HEAD}\n1,2"),
    "a column twice": ("a.csv", "a,b,a\n1,2,3", "a.csv:1: column 'a' is there twice", "a,b,c\n1,2,3"),
    "a column without a name": ("a.csv", ",a\n1,2", "a.csv:1: a column has no name", "id,a\n1,2"),
    "two without": ("a.csv", "a,,\n1,2,3", "a.csv:1: a column has no name", "a,b,c\n1,2,3"),
    "semicolons": ("a.csv", "a;b\n1;2", "a.csv:1: there is one column, 'a;b'", "a,b\n1,2"),
    "a NUL": ("a.csv", f"{HEAD}1,\0", "a.csv:2: a NUL character", f"{HEAD}1,"),
    "a quote not closed": ("a.csv", f'{HEAD}1,2\n"3,4\n5,6\n', "a.csv:3: the row that begins", f'{HEAD}1,2\n"3",4\n'),
    "text after a quote": ("a.csv", f'{HEAD}"1"2,3\n', "a.csv:2: the row that begins here", f'{HEAD}"1""2",3\n'),
    "no Parquet": ("a.parquet", LINE, "a.parquet cannot be read as Parquet", None),
    "empty Parquet": ("a.parquet", "", "a.parquet cannot be read as Parquet", None),
}


@pytest.mark.parametrize(("name", "bad", "said", "good"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_its_place_and_its_twin_is_read(write, name, bad, said, good):
    path = write(name, bad)
    with pytest.raises(DataError) as error:
        entries(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    if good is not None:
        assert entries(write(name, good))


def test_a_cure_is_given(write):
    for name, bad, cure in (
        ("a.json", b'["\xe9"]', "save the file as UTF-8"),
        ("a.json", f"{LINE}\n{LINE}", "JSON Lines files end in .jsonl"),
        ("a.csv", ",a\n1,2", "index=False"),
        ("a.xlsx", "", ".json, .jsonl, .csv, .tsv, .parquet"),
    ):
        with pytest.raises(DataError) as error:
            entries(write(name, bad))
        assert cure in error.value.hint


def test_truncated_parquet_is_refused(tmp_path):
    path = save_parquet(tmp_path / "a.parquet", {"a": ["x" * 1000]})
    raw = path.read_bytes()
    for size in (5, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:size])
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            entries(path)


def test_columns_and_values_that_python_cannot_hold_are_refused():
    twice = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    with pytest.raises(DataError, match="here: column 'a' is there twice"):
        arrow_entries("here", twice)
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9"))
    with pytest.raises(DataError, match="here cannot be read"):
        arrow_entries("here", pa.table({"a": broken}))


def test_a_folder_or_nothing_is_no_file(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataError, match=r"a\.csv cannot be read"):
        entries(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.parquet: there is no such file"):
        entries(tmp_path / "a.parquet")


def test_faults_are_named_with_their_lines_and_counted():
    faults = [(Entry(number, {}, number + 1), " is wrong") for number in (2, 4, 6, 8)]
    assert str(bad_rows("a.csv", faults)) == (
        "a.csv:3: row 2 is wrong; row 4 (line 5) is wrong; row 6 (line 7) is wrong; and 1 more"
    )
    assert str(bad_rows("a.json", [(Entry(2, {}), " is wrong")] * 2)) == "a.json: row 2 is wrong; row 2 is wrong"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXT_OF_CSV = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.lists(st.tuples(TEXT_OF_CSV, TEXT_OF_CSV), min_size=1, max_size=8))
def test_every_format_reads_the_same_texts(tmp_path_factory, pairs):
    place = tmp_path_factory.mktemp("same")
    rows = [{"instruction": first, "output": second} for first, second in pairs]
    (place / "a.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8", newline="")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)
    (place / "a.jsonl").write_text(lines, encoding="utf-8-sig", newline="")
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (place / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["instruction", "output"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    save_parquet(place / "a.parquet", {key: [row[key] for row in rows] for key in ("instruction", "output")})
    for name in ("a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet"):
        assert values(place / name) == rows, name


@given(TEXT)
def test_json_holds_every_character(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("all") / "a.jsonl"
    path.write_text(json.dumps({"a": text}), encoding="utf-8")
    assert values(path) == [{"a": text}]


@given(st.binary(max_size=60), st.sampled_from([".json", ".jsonl", ".csv", ".tsv", ".parquet"]))
def test_no_bytes_are_an_internal_error(tmp_path_factory, content, ending):
    path = tmp_path_factory.mktemp("noise") / f"a{ending}"
    path.write_bytes(content)
    with suppress(DataError):
        entries(path)


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_what_need_not_end_is_not_waited_for(tmp_path, ending):
    pipe, device = tmp_path / f"pipe{ending}", tmp_path / f"zero{ending}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(DataError, match="it is no plain file") as caught:
            entries(path)
        assert caught.value.code == "bad-data"


def test_a_link_to_a_file_of_rows_is_read(write, tmp_path):
    link = tmp_path / "link.jsonl"
    link.symlink_to(write("rows.jsonl", LINE))
    assert values(link) == [GOOD]
