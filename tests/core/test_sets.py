"""The sets of a folder, and folders written from a split."""

import json

import pytest

from llmad import rows
from llmad.errors import DataError, UsageError
from llmad.registry import registry
from llmad.sets import sets_in, write_split

ROW = {"instruction": "1 + 1?", "input": "", "output": "The answer is 2.", "answer": "2"}


@pytest.fixture
def folder(tmp_path):
    for name, count in {"SVAMP": 4, "AddSub": 3}.items():
        (tmp_path / "sets" / name).mkdir(parents=True)
        made = [{**ROW, "instruction": f"{name} {number}?"} for number in range(count)]
        (tmp_path / "sets" / name / "test.json").write_text(json.dumps(made))
    return tmp_path / "sets"


def test_the_sets_that_are_there_are_read(folder):
    assert {name: len(found) for name, found in sets_in(folder, []).items()} == {"addsub": 3, "svamp": 4}
    assert list(sets_in(folder, ["svamp"])) == ["svamp"]


def test_a_folder_without_sets_or_without_one_that_is_named_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="the test file of no task"):
        sets_in(tmp_path, [])
    with pytest.raises(DataError, match="no such folder"):
        sets_in(tmp_path / "missing", [])
    with pytest.raises(DataError, match="AQuA"):
        sets_in(folder, ["aqua"])


def test_a_split_is_a_folder_that_can_be_trained_on_and_evaluated_with(folder, tmp_path):
    sets = sets_in(folder, [])
    write_split({name: (found[:2], found[2:]) for name, found in sets.items()}, tmp_path / "out", {"seed": 0})
    assert len(rows.rows(registry().task("math"), "train", str(tmp_path / "out"), 0, 0)) == 4
    assert {name: len(found) for name, found in sets_in(tmp_path / "out", []).items()} == {"addsub": 1, "svamp": 2}
    about = json.loads((tmp_path / "out" / "split.json").read_text())
    assert about == {"seed": 0, "sets": {"addsub": {"train": 2, "test": 1}, "svamp": {"train": 2, "test": 2}}}


def test_a_folder_that_holds_something_is_left_alone(folder):
    before = sorted(folder.rglob("*"))
    with pytest.raises(UsageError, match="is not empty"):
        write_split({}, folder, {})
    assert sorted(folder.rglob("*")) == before
