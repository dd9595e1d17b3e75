import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad import errors
from llmad.errors import LlmadError, nearest


def test_an_error_carries_code_hint_and_line():
    error = errors.ModelError("broken", "it is broken", "mend it")
    assert (error.code, str(error), error.hint, error.exit_code) == ("broken", "it is broken", "mend it", 4)


def test_exit_codes_are_those_of_the_contract():
    codes = {error.__name__: error.exit_code for error in LlmadError.__subclasses__()}
    assert codes == {
        "UsageError": 2, "DataError": 3, "ModelError": 4, "DivergedError": 5, "StorageError": 6, "ResumeError": 7,
        "OutOfMemoryError": 8, "RankError": 9,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "known", "hint"), [
    ("loar", ["lora", "series"], "did you mean lora?; there is: series"),
    ("x", ["lora", "series"], "there is: lora, series"),
    ("lora", ["lora"], "did you mean lora?"),
    ("x", [], "there is none to choose from"),
])  # fmt: skip
def test_nearest_names_the_likely_first(name, known, hint):
    assert nearest(name, known) == hint


@given(st.text(), st.lists(st.text(), max_size=40))
def test_nearest_always_says_something(name, known):
    assert nearest(name, known)
