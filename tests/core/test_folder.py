"""A folder appears, is replaced and goes away at once."""

import pytest

from llmad import folder as under_test
from llmad.errors import StorageError
from llmad.files import sweep
from llmad.folder import appearing, discard
from tests.outage import Killed, outage


def fill(folder, text):
    with appearing(folder) as temporary:
        for name in "ab":
            (temporary / name).write_text(text)


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture(params=[True, False], ids=["exchanged", "one after the other"])
def exchanges(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(under_test, "_exchange", lambda *_: False)
    return request.param


@pytest.mark.usefixtures("exchanges")
def test_a_folder_appears_and_is_replaced_with_nothing_left_beside_it(tmp_path):
    for text in ("one", "two"):
        fill(tmp_path / "a", text)
        assert content(tmp_path / "a") == {"a": text, "b": text}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.usefixtures("exchanges")
def test_an_empty_folder_may_be_there_already(tmp_path):
    (tmp_path / "a").mkdir()
    fill(tmp_path / "a", "one")
    assert content(tmp_path / "a") == {"a": "one", "b": "one"}


@pytest.mark.usefixtures("exchanges")
def test_what_fails_leaves_the_old_one(tmp_path):
    fill(tmp_path / "a", "one")
    with pytest.raises(KeyError), appearing(tmp_path / "a") as temporary:
        {}[(temporary / "a").write_text("two")]
    assert content(tmp_path / "a") == {"a": "one", "b": "one"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_wherever_it_is_killed_it_is_the_old_or_the_new_one(tmp_path, exchanges):
    fill(tmp_path / "count", "one")
    with outage() as calls:
        fill(tmp_path / "count", "two")
    for number in range(len(calls)):
        folder = tmp_path / str(number)
        fill(folder, "one")
        with pytest.raises(Killed), outage(number):
            fill(folder, "two")
        assert not exchanges or folder.exists()
        if folder.exists():
            assert content(folder) in ({"a": "one", "b": "one"}, {"a": "two", "b": "two"})
        fill(folder, "three")
        assert content(folder) == {"a": "three", "b": "three"}
        assert not list(tmp_path.glob(f".{number}.*"))


def test_a_rename_that_fails_puts_the_old_one_back(tmp_path, monkeypatch):
    fill(tmp_path / "a", "one")
    monkeypatch.setattr(under_test, "_exchange", lambda *_: False)
    with outage(error=28) as calls:
        fill(tmp_path / "a", "two")
    second = [number for number, name in enumerate(calls) if name == "rename"][1]
    with pytest.raises(StorageError, match="No space"), outage(second, 28):
        fill(tmp_path / "a", "three")
    assert content(tmp_path / "a") == {"a": "two", "b": "two"}


def test_a_folder_that_is_half_deleted_has_lost_its_name(tmp_path):
    fill(tmp_path / "count", "one")
    with outage() as calls:
        discard(tmp_path / "count")
    for number in range(len(calls)):
        folder = tmp_path / str(number)
        fill(folder, "one")
        with pytest.raises(Killed), outage(number):
            discard(folder)
        assert not folder.exists() or content(folder) == {"a": "one", "b": "one"}
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"0", "1"}
