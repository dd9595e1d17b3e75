"""The folder of a merged model: whole, or not there."""

import pytest

from llmad.errors import StorageError
from llmad.merged import _appearing


def test_a_folder_appears_whole(tmp_path):
    with _appearing(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]


@pytest.mark.parametrize(
    ("fault", "told"), [(OSError(28, "No space left on device"), StorageError), (KeyError(), KeyError)]
)
def test_nothing_is_left_where_writing_fails(tmp_path, fault, told):
    with pytest.raises(told), _appearing(tmp_path / "out"):
        raise fault
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_be_there_already(tmp_path):
    (tmp_path / "out").mkdir()
    with _appearing(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
    assert (tmp_path / "out" / "a").read_text() == "x"
