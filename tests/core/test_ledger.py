"""The ledger: on the disk at once, and only for the run that it is of."""

import pytest

from llmad.errors import ResumeError, StorageError
from llmad.ledger import Ledger

WHO = {"task": "a", "seed": 1}


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "journal.jsonl")


def test_a_ledger_gives_back_what_it_was_told(ledger):
    assert ledger.open(WHO) == []
    ledger.add([{"row": 1}, {"row": 0}])
    ledger.add([{"text": "ä\u2028\n"}])
    assert ledger.open(dict(reversed(WHO.items()))) == [{"row": 1}, {"row": 0}, {"text": "ä\u2028\n"}]


def test_a_torn_last_line_is_forgotten_wherever_it_was_torn(ledger):
    ledger.open(WHO)
    ledger.add([{"row": 1}])
    whole = ledger.path.read_bytes()
    ledger.add([{"row": 2}])
    torn = ledger.path.read_bytes()
    for size in range(len(whole), len(torn)):
        ledger.path.write_bytes(torn[:size])
        assert ledger.open(WHO) == [{"row": 1}]
        assert ledger.path.read_bytes() == whole


def test_a_torn_first_line_begins_anew(ledger):
    ledger.path.write_text('{"task": "a", ')
    assert ledger.open(WHO) == []
    assert ledger.open(WHO) == []
    assert len(ledger.path.read_text().splitlines()) == 1


def test_another_run_is_refused_with_what_differs(ledger):
    ledger.open(WHO)
    ledger.add([{"row": 1}])
    with pytest.raises(ResumeError, match=r"of another run: seed 1, now 2, model None, now x$") as caught:
        ledger.open({**WHO, "seed": 2, "model": "x"})
    assert caught.value.exit_code == 7


def test_a_journal_without_entries_is_begun_anew(ledger):
    ledger.open({**WHO, "model": "mistyped"})
    assert ledger.open(WHO) == []
    ledger.add([{"row": 1}])
    assert ledger.open(WHO) == [{"row": 1}]


@pytest.mark.parametrize("line", ["no JSON", "[]", "[" * 100_000])
def test_what_is_no_journal_is_refused(ledger, line):
    ledger.open(WHO)
    with ledger.path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ResumeError, match=r"journal\.jsonl:2: no line of a journal"):
        ledger.open(WHO)


def test_a_ledger_that_cannot_be_written_is_a_storage_error(ledger):
    ledger.path.mkdir()
    with pytest.raises(StorageError):
        ledger.open(WHO)


def test_a_ledger_can_be_removed(ledger):
    ledger.open(WHO)
    ledger.remove()
    assert not ledger.path.exists()
