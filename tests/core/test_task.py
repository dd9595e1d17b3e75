"""Tasks."""

import pytest

from llmad import Prompt, Task
from llmad.errors import DataError

PROMPT = Prompt(question="Q {instruction}")


def test_a_task_that_makes_no_rows_says_where_they_come_from():
    task = Task("svamp", "", PROMPT, lambda _: None, files={"test": "SVAMP/test.json"})
    with pytest.raises(DataError, match="come from a file") as error:
        task.rows("test", 1, 0)
    assert "SVAMP/test.json" in error.value.hint


def test_a_task_describes_itself_as_plain_data():
    task = Task("svamp", "sums", PROMPT, lambda _: None, files={"test": "SVAMP/test.json"})
    assert task.describe() == {"name": "svamp", "summary": "sums", "files": {"test": "SVAMP/test.json"}}
