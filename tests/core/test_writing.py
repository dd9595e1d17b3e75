"""What is written beside the steps, and what becomes of it when they end."""

import signal
import threading

import pytest

from llmad.errors import LlmadWarning
from llmad.stopping import Stopped
from llmad.writing import Writing


class Gate:
    """Something to write that waits for a permit; `done` are the names of what is written."""

    def __init__(self):
        self.open = threading.Event()
        self.done = []

    def write(self, name, error=None):
        """What writes that name, or raises."""

        def write():
            assert self.open.wait(20)
            if error:
                raise error
            self.done.append(name)

        return write


@pytest.fixture
def gate():
    return Gate()


def test_nothing_waits_for_what_is_written_beside(gate):
    with Writing(beside=True) as writing:
        writing.put(gate.write("a"))
        assert gate.done == []
        gate.open.set()
    assert gate.done == ["a"]


def test_one_is_written_after_the_other(gate):
    with Writing(beside=True) as writing:
        writing.put(gate.write("a"))
        threading.Timer(0.05, gate.open.set).start()
        writing.put(gate.write("b"))
        assert gate.done[:1] == ["a"]
    assert gate.done == ["a", "b"]


def test_on_the_spot_it_is_written_when_it_is_given(gate):
    gate.open.set()
    with Writing(beside=False) as writing:
        writing.put(gate.write("a"))
        assert gate.done == ["a"]


@pytest.mark.parametrize("beside", [True, False])
def test_an_error_reaches_who_waits(gate, beside):
    gate.open.set()
    with pytest.raises(MemoryError, match="full"), Writing(beside) as writing:
        writing.put(gate.write("a", MemoryError("full")))
    assert gate.done == []


def test_an_error_reaches_who_gives_the_next_one(gate):
    gate.open.set()
    writing = Writing(beside=True)
    writing.put(gate.write("a", OSError("full")))
    with pytest.raises(OSError, match="full"):
        writing.put(gate.write("b"))
    writing.put(gate.write("c"))
    writing.wait()
    assert gate.done == ["c"]


def put_and_raise(gate, error, in_write=None):
    with Writing(beside=True) as writing:
        writing.put(gate.write("a", in_write))
        raise error


def test_what_is_under_way_is_written_whatever_else_goes_wrong(gate):
    threading.Timer(0.05, gate.open.set).start()
    with pytest.raises(ValueError, match="diverged"):
        put_and_raise(gate, ValueError("diverged"))
    assert gate.done == ["a"]


def test_a_save_that_fails_too_is_told(gate):
    gate.open.set()
    with pytest.raises(ValueError, match="diverged"), pytest.warns(LlmadWarning, match="a save be finished: full"):
        put_and_raise(gate, ValueError("diverged"), OSError("full"))


def test_who_has_to_end_at_once_does_not_wait(gate):
    with pytest.raises(Stopped):
        put_and_raise(gate, Stopped(signal.SIGINT))
    assert gate.done == []
    gate.open.set()
