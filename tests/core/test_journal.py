"""Answers as they are found, in a file that a kill may tear anywhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad.errors import StorageError
from llmad.journal import Journal
from llmad.score import Answer


def answer(index, text="7"):
    return Answer("t", index, "?", text, "7", "7", True, 1)


def test_answers_are_kept_and_come_in_order(tmp_path):
    path = tmp_path / "deep" / "t.jsonl"
    journal = Journal(path, "id")
    journal.add([answer(2), answer(0)], 1.5)
    journal.add([answer(1, "line\u2028break\n")], 0.5)
    again = Journal(path, "id")
    assert again.ordered() == [answer(0), answer(1, "line\u2028break\n"), answer(2)]
    assert again.seconds == 2.0
    assert Journal(path, "other").ordered() == []


def test_closing_writes_a_line_an_answer_and_leaves_no_journal(tmp_path):
    journal = Journal(tmp_path / "t.jsonl", "id")
    journal.add([answer(1), answer(0)], 1.0)
    journal.close([tmp_path, tmp_path / "more"])
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1]
    assert (tmp_path / "more" / "t.jsonl").read_text() == (tmp_path / "t.jsonl").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more", "t.jsonl"]


@given(st.integers(0, 10_000), st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_a_journal_that_is_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, cut, texts):
    path = tmp_path_factory.mktemp("cut") / "t.jsonl"
    journal = Journal(path, "id")
    for index, text in enumerate(texts):
        journal.add([answer(index, text)], 1.0)
    whole = journal.partial.read_bytes()
    journal.partial.write_bytes(whole[: cut % (len(whole) + 1)])
    again = Journal(path, "id")
    kept = again.ordered()
    assert kept == [answer(index, text) for index, text in enumerate(texts)][: len(kept)]
    again.add([answer(9)], 1.0)
    assert Journal(path, "id").ordered() == [*kept, answer(9)]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        Journal(tmp_path / "file" / "t.jsonl", "id")
