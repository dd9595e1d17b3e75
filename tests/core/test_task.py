"""Tasks and prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad import Prompt, Task
from llmad.errors import DataError

PROMPT = Prompt(question="Q {instruction}", question_with_input="I {input} Q {instruction}", lead=" ")


def test_a_row_becomes_a_question_and_an_answer():
    row = {"instruction": "1?", "output": "\n one \n"}
    assert PROMPT.ask(row) == "Q 1?"
    assert PROMPT.answer(row) == " one"


def test_the_input_is_asked_with_where_there_is_one():
    assert PROMPT.ask({"instruction": "1?", "input": "x"}) == "I x Q 1?"
    assert PROMPT.ask({"instruction": "1?", "input": ""}) == "Q 1?"
    assert Prompt(question="Q {instruction}").ask({"instruction": "1?", "input": "x"}) == "Q 1?"


@given(st.text())
def test_an_instruction_stands_in_the_question_as_it_is(instruction):
    assert PROMPT.ask({"instruction": instruction, "input": "x"}) == f"I x Q {instruction}"


def test_braces_in_an_input_are_no_places():
    row = {"instruction": "1?", "input": "{instruction}"}
    assert PROMPT.ask(row) == "I {instruction} Q 1?"


def test_the_fingerprint_tells_prompts_apart():
    assert PROMPT.fingerprint() == Prompt(PROMPT.question, PROMPT.question_with_input, " ").fingerprint()
    assert PROMPT.fingerprint() != Prompt(PROMPT.question, PROMPT.question_with_input, "").fingerprint()


def test_a_task_that_makes_no_rows_says_where_they_come_from():
    task = Task("svamp", "", PROMPT, lambda _: None, files={"test": "SVAMP/test.json"})
    with pytest.raises(DataError, match="come from a file") as error:
        task.rows("test", 1, 0)
    assert "SVAMP/test.json" in error.value.hint


def test_a_task_describes_itself_as_plain_data():
    task = Task("svamp", "sums", PROMPT, lambda _: None, files={"test": "SVAMP/test.json"})
    assert task.describe() == {"name": "svamp", "summary": "sums", "files": {"test": "SVAMP/test.json"}}
