"""The journal: on the disk at once, and only for the run that it is of."""

import pytest

from llmad.errors import ResumeError, StorageError
from llmad.journal import Journal

WHO = {"task": "a", "seed": 1}


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.jsonl")


def test_a_journal_gives_back_what_it_was_told(journal):
    assert journal.open(WHO) == []
    journal.add([{"row": 1}, {"row": 0}])
    journal.add([{"text": "ä\u2028\n"}])
    assert journal.open(dict(reversed(WHO.items()))) == [{"row": 1}, {"row": 0}, {"text": "ä\u2028\n"}]


def test_a_torn_last_line_is_forgotten_wherever_it_was_torn(journal):
    journal.open(WHO)
    journal.add([{"row": 1}])
    whole = journal.path.read_bytes()
    journal.add([{"row": 2}])
    torn = journal.path.read_bytes()
    for size in range(len(whole), len(torn)):
        journal.path.write_bytes(torn[:size])
        assert journal.open(WHO) == [{"row": 1}]
        assert journal.path.read_bytes() == whole


def test_a_torn_first_line_begins_anew(journal):
    journal.path.write_text('{"task": "a", ')
    assert journal.open(WHO) == []
    assert journal.open(WHO) == []
    assert len(journal.path.read_text().splitlines()) == 1


def test_another_run_is_refused_with_what_differs(journal):
    journal.open(WHO)
    with pytest.raises(ResumeError, match=r"of another run: seed 1, now 2, model None, now x$") as caught:
        journal.open({**WHO, "seed": 2, "model": "x"})
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("line", ["no JSON", "[]", "[" * 100_000])
def test_what_is_no_journal_is_refused(journal, line):
    journal.open(WHO)
    with journal.path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ResumeError, match=r"journal\.jsonl:2: no line of a journal"):
        journal.open(WHO)


def test_a_journal_that_cannot_be_written_is_a_storage_error(journal):
    journal.path.mkdir()
    with pytest.raises(StorageError):
        journal.open(WHO)


def test_a_journal_can_be_removed(journal):
    journal.open(WHO)
    journal.remove()
    assert not journal.path.exists()
