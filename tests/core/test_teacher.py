"""Teachers by name."""

import pytest

from llmad.endpoint import Endpoint
from llmad.errors import UsageError
from llmad.local_teacher import LocalTeacher
from llmad.teacher import hire, messages


def test_an_address_is_an_endpoint():
    teacher = hire("https://host/v1", "m", 3, 0.5, 7, 9.0)
    assert isinstance(teacher, Endpoint)
    assert (teacher.at_once, teacher.temperature, teacher.seed, teacher.timeout) == (3, 0.5, 7, 9.0)


def test_an_endpoint_loads_no_torch(python):
    code = "import sys\nfrom llmad.teacher import hire\nhire('https://host/v1', 'm')\nprint('torch' in sys.modules)"
    assert python(code).strip() == "False"


def test_a_folder_is_a_local_teacher(folder):
    assert isinstance(hire(folder), LocalTeacher)


@pytest.mark.parametrize("name", ["127.0.0.1:8000/v1", "localhost:8000/v1", "host.name:443"])
def test_an_address_without_a_scheme_is_asked_back(name):
    with pytest.raises(UsageError, match="is it an endpoint") as caught:
        hire(name, "m")
    assert "http://" in caught.value.hint


def test_a_local_teacher_has_one_model(folder):
    with pytest.raises(UsageError, match="--model is for an endpoint"):
        hire(folder, "m")


def test_a_name_that_is_none_is_refused():
    with pytest.raises(UsageError, match="no backbone 'abcus'"):
        hire("abcus")


def test_turns_of_a_chat():
    assert [turn["role"] for turn in messages(("a", "b", "c"))] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    "options", [{"temperature": float("nan")}, {"timeout": float("nan")}, {"timeout": float("inf")}]
)
def test_what_is_no_number_to_work_with_is_refused(options):
    with pytest.raises(UsageError, match="one cannot be meant so"):
        hire("https://host/v1", "m", **options)
