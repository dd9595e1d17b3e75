"""Stored answers: read, compared and counted without a model."""

import json

import pytest

from llmad import stored
from llmad.errors import DataError, UsageError
from llmad.registry import registry

ROWS = [
    {"instruction": "1 + 1?", "output_pred": "The answer is 2.", "answer": "2"},
    {"output_pred": "So 3. The answer is 4, or", "answer": 3},
    {"output_pred": "", "answer": "5.0"},
    {"output_pred": "I think 7.", "answer": "7"},
]


@pytest.fixture
def task():
    return registry().task("gsm8k")


@pytest.fixture
def written(tmp_path):
    def written(content, name="answers.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return written


def test_answers_are_read_and_counted(task, written):
    found = stored.score(written(ROWS), task)
    assert [answer.prediction for answer in found.answers] == ["2", "4", None, None]
    assert (found.score.n, found.score.correct, found.score.unparsed) == (4, 1, 2)
    assert found.score.accuracy == 0.25


def test_paper_reads_what_strict_does_not(task, written):
    found = stored.score(written(ROWS), task, "paper")
    assert [answer.correct for answer in found.answers] == [True, False, False, True]
    assert found.score.unparsed == 1


def test_json_lines_say_the_same(task, written):
    lines = written("\n".join(json.dumps(row) for row in ROWS), "answers.jsonl")
    assert stored.score(lines, task).answers == stored.score(written(ROWS), task).answers


def test_it_is_described_for_machines(task, written):
    found = stored.score(written(ROWS), task).describe()
    assert {"task", "protocol", "n", "correct", "accuracy", "unparsed", "interval", "majority"} <= found.keys()
    assert not {"seconds", "tokens_per_second"} & found.keys()
    assert found["answers"][1] == {"index": 1, "prediction": "4", "answer": "3", "correct": False}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("row", "fault"), [
    ("text", "row 2 is "),
    ({"answer": "1"}, "row 2 has no field 'output_pred'"),
    ({"output_pred": "1"}, "row 2 has no field 'answer'"),
    ({"output_pred": None, "answer": "1"}, "row 2: output_pred is NoneType, not text"),
    ({"output_pred": 5, "answer": "1"}, "row 2: output_pred is int, not text"),
    ({"output_pred": "1", "answer": True}, "row 2: answer is bool, not text"),
    ({"output_pred": "1", "answer": ["1"]}, "row 2: answer is list, not text"),
    ({"output_pred": "1", "answer": ""}, "row 2: task gsm8k cannot read the right answer"),
    ({"output_pred": "1", "answer": "seven"}, "row 2: task gsm8k cannot read the right answer"),
])  # fmt: skip
def test_a_row_that_cannot_be_scored_is_named(task, written, row, fault):
    path = written([ROWS[0], row])
    with pytest.raises(DataError) as error:
        stored.score(path, task)
    assert str(error.value).startswith(f"{path}: {fault}")
    assert error.value.code == "bad-row"


def test_many_faults_are_counted(task, written):
    with pytest.raises(DataError, match="row 3 has no field 'output_pred'; and 2 more"):
        stored.score(written([{"answer": "1"}] * 5), task)


@pytest.mark.parametrize(("content", "code"), [("[]", "empty-data"), ("{}", "bad-data"), ("[", "bad-data")])
def test_a_file_without_rows_is_refused(task, written, content, code):
    with pytest.raises(DataError) as error:
        stored.score(written(content), task)
    assert error.value.code == code


def test_a_missing_file_is_refused(task, tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        stored.score(tmp_path / "none.json", task)


def test_an_unknown_protocol_is_refused(task, written):
    with pytest.raises(UsageError, match="there is no protocol 'papers'"):
        stored.score(written(ROWS), task, "papers")


def test_it_needs_no_torch(python):
    assert python("import sys; from llmad import stored; print('torch' in sys.modules)").split() == ["False"]
