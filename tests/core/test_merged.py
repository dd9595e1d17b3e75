"""The prompt of a merged model."""

import pytest

from llmad import Prompt
from llmad.errors import ModelError, UsageError
from llmad.merged import _one_prompt
from llmad.prompting import record

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
