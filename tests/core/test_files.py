"""Files that appear whole or not at all."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from safetensors import SafetensorError

from llmad import files
from llmad.errors import StorageError
from llmad.files import check_writable, make, replace, storing, sweep, write_json, write_text


def test_json_is_readable_and_ends_in_a_line_feed(tmp_path):
    write_json(tmp_path / "a.json", {"name": "ä"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "ä"}
    assert text.endswith("}\n")
    assert "ä" in text


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    for text in ("one", "two"):
        write_text(tmp_path / "a", text)
    assert (tmp_path / "a").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path):
    write_text(tmp_path / "a", "old")

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_umask_says_who_may_read(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_that_is_missing_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="No such file") as error:
        write_text(tmp_path / "missing" / "a", "")
    assert error.value.exit_code == 6


def test_what_the_system_refuses_is_a_storage_error_and_the_rest_is_not(tmp_path):
    with pytest.raises(StorageError, match="No space left"), storing(tmp_path):
        raise OSError(28, "No space left on device")
    with pytest.raises(ValueError, match="other"), storing(tmp_path):
        raise ValueError("other")


def test_a_folder_that_can_be_made_is_writable(tmp_path, monkeypatch):
    check_writable(tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    check_writable(tmp_path.relative_to(tmp_path) / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file is in the way"):
        check_writable(tmp_path / "file" / "a" / "b")


def test_a_folder_that_takes_no_files_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # for root every folder takes files
    with pytest.raises(StorageError, match="may not be written"):
        check_writable(tmp_path / "a")


@pytest.mark.parametrize(
    ("number", "cure"),
    [(errno.ENOSPC, "free space"), (errno.EDQUOT, "quota"), (errno.EROFS, "mount"), (errno.EACCES, "let this user"),
     (errno.EIO, "failing"), (errno.EFBIG, "ulimit -f")],
)  # fmt: skip
def test_what_would_help_is_said(tmp_path, number, cure):
    with pytest.raises(StorageError) as error, storing(tmp_path):
        raise OSError(number, os.strerror(number))
    assert cure in error.value.hint
    with pytest.raises(StorageError) as error, storing(tmp_path):
        raise SafetensorError(f"Error while serializing: I/O error: x (os error {number})")
    assert cure in error.value.hint


def test_text_that_is_read_back_otherwise_is_an_error(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: write(path, content[:-1]))
    with pytest.raises(StorageError, match="does not hold what was written") as error:
        write_text(tmp_path / "a", "new")
    assert error.value.exit_code == 6
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_made_with_those_that_it_lies_in(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "sync", synced.append)
    make(tmp_path / "a" / "b")
    make(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path / "a", tmp_path]


def test_only_what_is_unfinished_is_swept_away(tmp_path):
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial" / "file").touch()
    (tmp_path / ".link.gone").symlink_to(tmp_path)
    for name in (".b.gone", "c.jsonl.partial", ".d", "e"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".d", "c.jsonl.partial", "e"]
