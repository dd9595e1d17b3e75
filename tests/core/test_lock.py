"""A folder is held by one process, and by none that is dead."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from llmad import lock
from llmad.errors import LlmadWarning, StorageError
from llmad.lock import NAME, locked

HOLD = (
    "import sys, pathlib, llmad.lock\nwith llmad.lock.locked(pathlib.Path(sys.argv[1])): print(1, flush=True); input()"
)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"1\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_that_is_held_is_refused_with_its_holder(tmp_path, other):
    with pytest.raises(StorageError) as error, locked(tmp_path):
        pytest.fail("held twice")
    assert str(error.value) == f"{tmp_path} is in use by process {other.pid} on {socket.gethostname()}"
    assert (error.value.code, error.value.exit_code) == ("in-use", 6)


def test_a_dead_holder_blocks_nobody(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert json.loads((tmp_path / NAME).read_text())["pid"] == other.pid
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_nothing_is_left_behind(tmp_path):
    with pytest.raises(ValueError, match="x"), locked(tmp_path):
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        pass


def test_a_holder_that_has_not_said_its_name_holds_all_the_same(tmp_path):
    with locked(tmp_path):
        (tmp_path / NAME).write_text("")
        with pytest.raises(StorageError, match="in use by another process"), locked(tmp_path):
            pytest.fail("held twice")


def test_many_at_once_take_turns(tmp_path):
    inside, most, taken = [], [], []

    def work():
        for _ in range(200):
            try:
                with locked(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    taken.append(1)
                    inside.pop()
            except StorageError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert taken
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.warns(LlmadWarning, match="cannot be locked"), locked(tmp_path):
        pass


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="No such file"), locked(tmp_path / "missing"):
        pass


def test_the_system_lets_go_of_it_where_the_file_cannot_be_deleted(tmp_path, monkeypatch):
    with locked(tmp_path):
        monkeypatch.setattr(os, "unlink", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    monkeypatch.undo()
    handle = os.open(tmp_path / NAME, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
