"""The folder of a merged model: whole, or not there."""

import pytest

from llmad import Prompt
from llmad.errors import ModelError, StorageError, UsageError
from llmad.merged import _appearing, _one_prompt
from llmad.prompting import record


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


ONE, OTHER = (record(Prompt(question)) for question in ("Q {instruction}", "A {instruction}"))


def test_adapters_of_one_prompt_are_merged_with_it():
    assert _one_prompt({"a": ONE, "b": {}, "c": ONE}, False) == Prompt("Q {instruction}")
    assert _one_prompt({"a": {}}, False) is None


def test_adapters_of_several_prompts_are_merged_only_if_that_is_asked_for():
    with pytest.raises(UsageError, match="2 different prompts") as error:
        _one_prompt({"a": ONE, "b": OTHER}, False)
    assert "--any-prompt" in error.value.hint
    assert _one_prompt({"a": ONE, "b": OTHER}, True) is None


def test_a_prompt_that_was_changed_is_refused():
    with pytest.raises(ModelError, match="fingerprint differs"):
        _one_prompt({"a": {**ONE, "prompt": OTHER["prompt"]}}, True)
