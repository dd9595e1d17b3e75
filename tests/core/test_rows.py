"""Rows: every layout and format, every fault named with its file and row, every bad file with a good twin."""

import csv
import json
from contextlib import suppress
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from llmad import rows
from llmad.errors import DataError, UsageError
from llmad.registry import registry

GOOD = {"instruction": "1 + 1?", "input": "", "output": "2. The answer is 2.", "answer": "2"}


@pytest.fixture
def write(tmp_path):
    def write(content, name="rows.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_a_list_of_rows_is_read(write):
    assert rows.read(write([GOOD, GOOD]), "train").rows == [GOOD, GOOD]


def test_json_lines_are_read_and_blank_lines_passed_over(write):
    text = f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD)}\n"
    assert rows.read(write(text, "rows.jsonl"), "train").rows == [GOOD, GOOD]


def test_json_lines_are_split_at_line_feeds_alone(write):
    odd = {**GOOD, "instruction": "1\u2028+\x851?"}
    text = json.dumps(odd, ensure_ascii=False) + "\r\n"
    assert rows.read(write(text, "rows.jsonl"), "train").rows == [odd]


def test_an_answer_may_be_a_number(write):
    (row,) = rows.read(write([{**GOOD, "answer": 2.5}]), "test").rows
    assert row["answer"] == "2.5"


def test_training_rows_need_no_answer_and_test_rows_no_output(write):
    path = write([{"instruction": "1?", "output": "1"}])
    assert rows.read(path, "train")
    with pytest.raises(DataError, match="row 1 has no field 'answer'"):
        rows.read(path, "test")


FAULTS = {
    "empty": ("", "rows.json:1: not JSON"),
    "an empty list": ("[]", "rows.json holds no rows"),
    "truncated": (json.dumps([GOOD, GOOD])[:-9], "rows.json:1: not JSON"),
    "not JSON": ("instruction: no\n", "rows.json:1: not JSON"),
    "an object": (json.dumps(GOOD), "expected a list of rows"),
    "nested too deeply": ("[" * 100_000, "rows.json:1:"),
    "a number too long": (f"[{'1' * 5000}]", "rows.json:1:"),
    "a row that is a list": ([GOOD, []], "row 2 is no object"),
    "a field missing": ([*[GOOD] * 6, {"instruction": "1?"}], "row 7 has no field 'output'"),
    "a field of another type": ([GOOD, {**GOOD, "output": 5}], "row 2: output is int, not text"),
    "null": ([{**GOOD, "input": None}], "row 1: input is NoneType, not text"),
    "a truth value": ([{**GOOD, "answer": True}], "row 1: answer is bool, not text"),
    "an empty field": ([{**GOOD, "instruction": " "}], "row 1: instruction is empty"),
    "nothing to learn": ([{**GOOD, "output": " "}], "every row's output is empty"),
    "half a character": ('[{"instruction": "\\ud800", "output": "1"}]', "row 1: instruction holds half a character"),
    "many": ([{"instruction": "1?"}] * 9, "row 3 has no field 'output'; and 6 more"),
}


@pytest.mark.parametrize(("content", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_its_place(write, content, said):
    path = write(content)
    with pytest.raises(DataError) as error:
        rows.read(path, "train")
    assert str(path.parent) in str(error.value)
    assert said in str(error.value)
    assert error.value.exit_code == 3


def test_a_bad_line_of_json_lines_is_named_by_its_number(write):
    with pytest.raises(DataError, match=r"rows.jsonl:3: not JSON"):
        rows.read(write(f"{json.dumps(GOOD)}\n\n{{\n", "rows.jsonl"), "train")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "rows.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"rows\.json cannot be read"):
        rows.read(tmp_path / "rows.json", "train")


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        rows.read(tmp_path / "rows.json", "train")


def test_the_hint_compares_the_keys(write):
    with pytest.raises(DataError) as error:
        rows.read(write([{"question": "1?", "output": "1"}]), "train")
    assert error.value.hint == (
        "rows have output, question; wanted are instruction, input, output, answer; "
        "map one with --columns instruction=NAME"
    )


ALL = "json jsonl csv tsv parquet"
FORMATS = ALL.split()


def save(path, entries):
    """Write entries in the format of the path's ending."""
    if path.suffix == ".json":
        path.write_text(json.dumps(entries), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(entries), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(entries[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(entries)
    return path


FAULTY = {
    # formats, split, how the second row differs from the first, what is said, and the twin that is read
    "a missing key": ("json jsonl", "train", {"output": ...}, "row 2 has no field 'output'", {}),
    "null": ("json jsonl parquet", "train", {"output": None}, "row 2: output is NoneType", {"output": "None"}),
    "null input": ("json jsonl parquet", "train", {"input": None}, "row 2: input is NoneType", {"input": ""}),
    "a number": ("json jsonl", "train", {"output": 5}, "row 2: output is int, not text", {"output": "5"}),
    "a fraction": ("json jsonl", "train", {"instruction": 2.5}, "row 2: instruction is float", {"instruction": "2.5"}),
    "a list": ("json jsonl", "train", {"output": ["5"]}, "row 2: output is list, not text", {"output": '["5"]'}),
    "an object": ("json jsonl", "train", {"output": {"a": "b"}}, "row 2: output is dict, not text", {"output": "{}"}),
    "a truth value": ("json jsonl", "test", {"answer": True}, "row 2: answer is bool, not text", {"answer": "True"}),
    "an empty question": (ALL, "train", {"instruction": ""}, "row 2: instruction is empty", {"instruction": "?"}),
    "a blank question": (ALL, "test", {"instruction": " \n"}, "row 2: instruction is empty", {"instruction": " ?"}),
    "an empty answer": (ALL, "test", {"answer": ""}, "row 2: answer is empty", {"answer": "0"}),
    "a blank answer": (ALL, "test", {"answer": "  "}, "row 2: answer is empty", {"answer": " 0 "}),
    "half a character": ("json jsonl", "train", {"output": "\ud83d"}, "output holds half", {"output": "\U0001f600"}),
    "the other half": ("json jsonl", "train", {"input": "a\ude00"}, "row 2: input holds half", {"input": "a"}),
    "an infinite number": ("json jsonl", "test", {"answer": 1e999}, "row 2: Infinity is no JSON", {"answer": 1e300}),
}  # fmt: skip


CASES = [(name, ending) for name, (formats, *_) in FAULTY.items() for ending in formats.split()]


@pytest.mark.parametrize(("name", "ending"), CASES)
def test_a_fault_is_named_and_its_twin_read_in_every_format(tmp_path, name, ending):
    _, split, bad, said, good = FAULTY[name]
    wrong = {key: value for key, value in (GOOD | bad).items() if value is not ...}
    path = save(tmp_path / f"rows.{ending}", [GOOD, wrong])
    with pytest.raises(DataError) as error:
        rows.read(path, split)
    assert said in str(error.value)
    line = ":3" if ending in ("csv", "tsv") else ":2" if ending == "jsonl" else ""
    assert str(error.value).startswith(f"{path}{line}: row 2")
    found = rows.read(save(path, [GOOD, GOOD | good]), split)
    assert found.rows[1] == {key: str(value) for key, value in (GOOD | good).items()}


@pytest.mark.parametrize(("text", "read"), [
    ("2.5", "2.5"), ("7", "7"), ("-0", "0"), ("123456789012345678901234567890", "123456789012345678901234567890"),
    ("1e2", "100.0"), ('"007"', "007"), ('"1e400"', "1e400"), ('"nan"', "nan"),
])  # fmt: skip
def test_an_answer_that_is_a_number_is_kept(write, text, read):
    assert rows.read(write(f'[{{"instruction": "1?", "answer": {text}}}]'), "test").rows[0]["answer"] == read


@pytest.mark.parametrize(("text", "said"), [
    ("1e400", "row 1: answer is inf, and no number"), ("-1e400", "row 1: answer is -inf"), ("NaN", "NaN is no JSON"),
])  # fmt: skip
def test_an_answer_that_is_no_finite_number_is_refused(write, text, said):
    with pytest.raises(DataError, match=said):
        rows.read(write(f'[{{"instruction": "1?", "answer": {text}}}]'), "test")


def test_numbers_in_parquet_are_answers_and_nothing_else(tmp_path):
    path = tmp_path / "rows.parquet"
    assert rows.read(save(path, [{"instruction": "1?", "answer": 2**60}]), "test").rows[0]["answer"] == str(2**60)
    with pytest.raises(DataError, match="row 1: answer is nan, and no number"):
        rows.read(save(path, [{"instruction": "1?", "answer": float("nan")}]), "test")
    with pytest.raises(DataError, match="row 1: output is int, not text"):
        rows.read(save(path, [{"instruction": "1?", "output": 7}]), "train")
    with pytest.raises(DataError, match="row 1: output is bytes, not text"):
        rows.read(save(path, [{"instruction": "1?", "output": b"7"}]), "train")


def test_cells_stay_as_they_are(tmp_path):
    path = save(tmp_path / "rows.csv", [{"instruction": "NA", "input": "null", "output": "1.0", "answer": "007"}])
    assert rows.read(path, "test").rows == [{"instruction": "NA", "input": "null", "output": "1.0", "answer": "007"}]


def test_the_same_row_twice_is_no_fault(write):
    assert len(rows.read(write([GOOD] * 3), "train").rows) == 3


def test_rows_hold_their_own_fields_alone(write):
    extra = {"id": 7, "source": None, "context": "x", "text": "y"}
    assert rows.read(write([GOOD | extra]), "train").rows == [GOOD]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ASKED = TEXT.filter(str.strip)


@given(st.lists(st.tuples(ASKED, TEXT, TEXT, ASKED), min_size=1, max_size=5))
def test_every_format_gives_the_same_rows(tmp_path_factory, table):
    place = tmp_path_factory.mktemp("same")
    entries = [dict(zip(GOOD, row, strict=True)) for row in table]
    for ending in FORMATS:
        assert rows.read(save(place / f"rows.{ending}", entries), "test").rows == entries, ending


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from(["user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "tool_calls"]), inner)
    ),
)
NAMES = ["instruction", "input", "output", "answer", "prompt", "completion", "messages", "conversations", "Input", ""]


@given(
    st.lists(st.dictionaries(st.sampled_from(NAMES), ANYTHING) | ANYTHING, max_size=3),
    st.sampled_from(["train", "test"]),
)
def test_nothing_in_a_file_is_an_internal_error(tmp_path_factory, content, split):
    path = tmp_path_factory.mktemp("noise") / "rows.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with suppress(DataError):
        assert all(isinstance(text, str) for row in rows.read(path, split).rows for text in row.values())


COMPLETION = {"prompt": "1 + 1 =", "completion": " 2"}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "And 3?"},
    {"role": "assistant", "content": "5"},
]


@pytest.mark.parametrize("ending", FORMATS)
def test_prompts_and_completions_are_read(tmp_path, ending):
    found = rows.read(save(tmp_path / f"rows.{ending}", [COMPLETION]), "train")
    assert found == rows.Loaded([{"instruction": "1 + 1 =", "output": " 2"}], "completion")
    test = [{"prompt": "1 + 1 =", "answer": "2"}]
    assert rows.read(save(tmp_path / f"rows.{ending}", test), "test").rows == [
        {"instruction": "1 + 1 =", "answer": "2"}
    ]


def test_a_fault_is_told_in_the_words_of_the_file(write):
    with pytest.raises(DataError, match="row 1: prompt is int, not text; row 1: completion is list, not text"):
        rows.read(write([{"prompt": 1, "completion": []}]), "train")
    with pytest.raises(DataError, match="row 1: question is empty"):
        rows.read(write([{"question": "", "output": "1"}]), "train", given={"instruction": "question"})


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_conversations_are_read(tmp_path, ending, column):
    found = rows.read(save(tmp_path / f"rows.{ending}", [{column: MESSAGES}, {column: MESSAGES[:3]}]), "train")
    assert (found.layout, found.conversations, len(found.rows)) == ("chat", 2, 3)
    assert found.rows[1] == {"instruction": "And 3?", "context": json.dumps(MESSAGES[:3]), "output": "5"}
    test = rows.read(save(tmp_path / f"test.{ending}", [{column: MESSAGES[:4], "answer": "5"}]), "test")
    assert test.rows == [{"instruction": "And 3?", "context": json.dumps(MESSAGES[:3]), "answer": "5"}]


@pytest.mark.parametrize(
    ("entry", "split", "said"),
    [
        ({"messages": []}, "train", "row 1: messages: no messages"),
        ({"messages": MESSAGES[:2]}, "train", "row 1: messages: no message is the assistant's"),
        ({"messages": "[]"}, "train", "row 1: messages: str, not a list of messages"),
        ({"conversations": [{"from": "tool"}]}, "train", "row 1: conversations: message 1: from is 'tool'"),
        ({"messages": MESSAGES}, "test", "row 1 has no field 'answer'"),
        ({"messages": MESSAGES, "answer": " "}, "test", "row 1: answer is empty"),
        ({"messages": [{"role": "user", "content": ""}, MESSAGES[2]]}, "train", "row 1: a user's message is empty"),
        ({"messages": [{"role": "user", "content": "\udc00"}, MESSAGES[2]]}, "train", "a user's message holds half"),
        ({"messages": [{"role": "system", "content": "\udc00"}, *MESSAGES[1:3]]}, "train", "an earlier message holds"),
    ],
)
def test_a_faulty_conversation_is_named(write, entry, split, said):
    with pytest.raises(DataError) as error:
        rows.read(write([entry]), split)
    assert said in str(error.value)


def test_two_layouts_in_one_file_are_refused(write):
    with pytest.raises(DataError, match="row 1 has instruction, output; row 2 has prompt, completion"):
        rows.read(write([GOOD, COMPLETION]), "train")


def test_columns_are_mapped(write):
    path = write([{"question": "1?", "reply": "1"}])
    assert rows.read(path, "train", given={"instruction": "question", "output": "reply"}) == rows.Loaded(
        [{"instruction": "1?", "output": "1"}], "instruction"
    )
    with pytest.raises(UsageError, match="no row has a column 'questions'") as error:
        rows.read(path, "train", given={"instruction": "questions"})
    assert error.value.hint.startswith("did you mean question?")


def test_a_column_that_is_nearly_right_is_told_with_the_option_that_maps_it(write):
    with pytest.raises(DataError, match="a column 'Instruction' and none 'instruction'") as error:
        rows.read(write([{"Instruction": "1?", "Output": "1"}]), "train")
    assert "--columns 'instruction=Instruction,output=Output'" in error.value.hint


def _convert(entry):
    if "final" not in entry:
        return None
    if "#" in entry["final"]:
        raise ValueError("final holds a #")
    return {"instruction": entry["body"], "output": entry["final"], "answer": entry["final"], "id": 3}


OWN = replace(registry().task("math"), name="own", convert=_convert)


def test_the_tasks_own_layout_is_converted(write):
    path = write([{"body": "1?", "final": "1"}])
    row = {"instruction": "1?", "output": "1", "answer": "1"}
    assert rows.read(path, "train", OWN) == rows.Loaded([row], "task")
    assert rows.rows(OWN, "test", str(path), 0, 0) == rows.Loaded([row], "task")


def test_the_papers_columns_come_before_the_tasks_own_and_the_tasks_own_before_others(write):
    assert rows.read(write([GOOD | {"body": "1?", "final": "1"}]), "train", OWN).layout == "instruction"
    assert rows.read(write([COMPLETION | {"body": "1?", "final": "1"}]), "train", OWN).layout == "task"
    assert rows.read(write([COMPLETION]), "train", OWN).layout == "completion"
    mapped = rows.read(write([{"body": "1?", "final": "1"}]), "train", OWN, {"instruction": "body", "output": "final"})
    assert mapped.layout == "instruction"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"body": "1?", "final": "#"}], "row 1: final holds a #"),
        ([{"body": "1?", "final": "1"}, {"body": "1?"}], "row 2 is not in the layout of task own"),
        ([{"body": "1?", "final": "1"}, {"final": "1"}], "row 2 is not in the layout of task own"),
        ([{"body": " ", "final": "1"}], "row 1: instruction is empty"),
        ([{"body": 1, "final": "1"}], "row 1: instruction is int, not text"),
        ([{"body": "1?", "last": "1"}], "row 1 has no field 'instruction'"),
    ],
)
def test_an_entry_that_the_task_cannot_convert_is_named(write, entries, said):
    with pytest.raises(DataError) as error:
        rows.read(write(entries), "test", OWN)
    assert said in str(error.value)


def test_a_conversion_that_leaves_out_a_field_is_named(write):
    half = replace(OWN, convert=lambda entry: {"instruction": entry["body"]})
    with pytest.raises(DataError, match="row 1 has no field 'output'"):
        rows.read(write([{"body": "1?"}]), "train", half)


def test_entries_are_there_for_others(write):
    (entry,) = rows.entries(write(json.dumps({"id": 1}) + "\n", "rows.jsonl"))
    assert (entry.number, entry.line, entry.values) == (1, 1, {"id": 1})


def test_columns_need_data():
    with pytest.raises(UsageError, match="columns: the rows of task arithmetic are generated"):
        rows.rows(registry().task("arithmetic"), "train", None, 3, 0, {"instruction": "question"})


def test_data_has_both_splits_or_one(tmp_path):
    commit = "0" * 40
    assert [rows.both_splits(data) for data in (None, "hub", f"hub:a/b@{commit}", str(tmp_path))] == [True] * 4
    assert [rows.both_splits(data) for data in ("hub#train", f"hub:a/b@{commit}#x", "rows.json")] == [False] * 3


def test_a_folder_holds_the_file_of_the_task(tmp_path):
    (tmp_path / "SVAMP").mkdir()
    (tmp_path / "SVAMP" / "test.json").write_text(json.dumps([GOOD]))
    assert rows.rows(registry().task("svamp"), "test", str(tmp_path), 5, 0).rows == [GOOD]


def test_a_folder_without_the_file_of_the_task_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"SVAMP/test.json: there is no such file"):
        rows.rows(registry().task("svamp"), "test", str(tmp_path), 5, 0)
    with pytest.raises(DataError, match="task svamp has no train file"):
        rows.rows(registry().task("svamp"), "train", str(tmp_path), 5, 0)


def test_a_task_may_make_its_own_rows():
    task = registry().task("arithmetic")
    assert rows.rows(task, "test", None, 3, 0) == rows.Loaded(task.rows("test", 3, 0), "generated")


def test_the_fingerprint_tells_rows_apart():
    assert rows.fingerprint([GOOD]) == rows.fingerprint([dict(reversed(GOOD.items()))])
    assert rows.fingerprint([GOOD]) != rows.fingerprint([GOOD, GOOD])
