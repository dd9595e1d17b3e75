"""Plain files: whatever else stands in their place is refused, and not waited for."""

import os
import socket

import pytest

from llmad import plain_file
from llmad.errors import ModelError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_text("text")
    return tmp_path / "here"


def fault(path, limit=100):
    with pytest.raises(ModelError) as caught:
        plain_file.read(path, limit)
    assert str(path) in str(caught.value)
    return caught.value


def test_a_file_is_read(folder):
    assert plain_file.check(folder / "file") == 4
    assert plain_file.read(folder / "file", 4) == b"text"


def test_a_link_within_the_directory_is_followed(folder):
    (folder / "link").symlink_to("file")
    assert plain_file.read(folder / "link", 4) == b"text"


def test_a_directory_that_is_a_link_itself_is_followed(folder, tmp_path):
    (tmp_path / "other").symlink_to(folder)
    assert plain_file.read(tmp_path / "other" / "file", 4) == b"text"


def test_a_snapshot_in_the_hubs_cache_is_read(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0123").write_text("text")
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "file").symlink_to("../../blobs/0123")
    assert plain_file.read(snapshot / "file", 4) == b"text"
    (snapshot / "other").symlink_to("../../blobs/../secret")
    (tmp_path / "secret").write_text("secret")
    assert fault(snapshot / "other").code == "link-outside"


@pytest.mark.parametrize("target", ["../secret", "/etc/hostname", "/dev/zero", "/proc/self/environ"])
def test_a_link_out_of_the_directory_is_refused(folder, target):
    (folder / "link").symlink_to(target)
    assert fault(folder / "link").code == "link-outside"


@pytest.mark.parametrize(("make", "words"), [
    (os.mkfifo, "is a pipe"),
    (os.mkdir, "is a directory"),
    (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "is a socket"),
    (lambda path: path.symlink_to(path), "cannot be read"),
    (lambda path: path.symlink_to("nothing"), "cannot be read"),
    (lambda path: None, "cannot be read"),
], ids=["pipe", "directory", "socket", "circle", "nowhere", "nothing"])  # fmt: skip
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_no_file_is_refused(folder, monkeypatch, make, words):
    monkeypatch.chdir(folder)  # the name of a socket must be short
    make(folder / "odd") if words != "is a socket" else make("odd")
    assert words in str(fault(folder / "odd"))


def test_a_large_file_is_refused_unread(folder):
    with (folder / "file").open("wb") as stream:
        stream.truncate(1 << 40)
    assert "1,099,511,627,776 bytes" in str(fault(folder / "file"))
