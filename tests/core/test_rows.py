"""Rows from files: every fault is named with its file and row."""

import json

import pytest

from llmad import rows
from llmad.errors import DataError
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
    assert rows.read(write([GOOD, GOOD]), "train") == [GOOD, GOOD]


def test_json_lines_are_read_and_blank_lines_passed_over(write):
    text = f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD)}\n"
    assert rows.read(write(text, "rows.jsonl"), "train") == [GOOD, GOOD]


def test_json_lines_are_split_at_line_feeds_alone(write):
    odd = {**GOOD, "instruction": "1\u2028+\x851?"}
    text = json.dumps(odd, ensure_ascii=False) + "\r\n"
    assert rows.read(write(text, "rows.jsonl"), "train") == [odd]


def test_an_answer_may_be_a_number(write):
    (row,) = rows.read(write([{**GOOD, "answer": 2.5}]), "test")
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
    assert error.value.hint == "rows have output, question; wanted are instruction, input, output, answer"


def test_a_folder_holds_the_file_of_the_task(tmp_path):
    (tmp_path / "SVAMP").mkdir()
    (tmp_path / "SVAMP" / "test.json").write_text(json.dumps([GOOD]))
    assert rows.rows(registry().task("svamp"), "test", str(tmp_path), 5, 0) == [GOOD]


def test_a_folder_without_the_file_of_the_task_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"SVAMP/test.json: there is no such file"):
        rows.rows(registry().task("svamp"), "test", str(tmp_path), 5, 0)
    with pytest.raises(DataError, match="task svamp has no train file"):
        rows.rows(registry().task("svamp"), "train", str(tmp_path), 5, 0)


def test_a_task_may_make_its_own_rows():
    task = registry().task("arithmetic")
    assert rows.rows(task, "test", None, 3, 0) == task.rows("test", 3, 0)


def test_the_fingerprint_tells_rows_apart():
    assert rows.fingerprint([GOOD]) == rows.fingerprint([dict(reversed(GOOD.items()))])
    assert rows.fingerprint([GOOD]) != rows.fingerprint([GOOD, GOOD])
