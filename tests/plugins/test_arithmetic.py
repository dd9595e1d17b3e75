"""Generated word problems."""

import re

import pytest

from llmad.registry import registry


@pytest.fixture(scope="module")
def task():
    return registry().task("arithmetic")


def pairs(rows):
    """The numbers and the operation of each row; the order of numbers does not matter."""
    equations = [re.match(r"(\d+) ([-+*/]) (\d+) = ", row["output"]).groups() for row in rows]
    return {(operation, *sorted((a, b))) for a, operation, b in equations}


def test_a_row_has_a_worked_answer_that_the_judge_reads(task):
    for row in task.rows("train", 200, 0):
        judge = task.judge(row["answer"])
        assert judge.agree(judge.read(task.prompt.answer(row), "strict"), row["answer"])
        a, operation, b = re.match(r"(\d+) ([-+*/]) (\d+)", row["output"]).groups()
        assert int(row["answer"]) == {"+": int(a) + int(b), "-": int(a) - int(b),
                                      "*": int(a) * int(b), "/": int(a) // int(b)}[operation]  # fmt: skip


def test_the_same_seed_gives_the_same_rows(task):
    assert task.rows("train", 50, 3) == task.rows("train", 50, 3)
    assert task.rows("train", 50, 3) != task.rows("train", 50, 4)


def test_there_are_as_many_rows_as_training_asks_for(task):
    found = task.rows("train", task.train_rows, 0)
    assert len(found) == task.train_rows
    assert len({row["instruction"] for row in found}) == task.train_rows


def test_train_and_test_share_no_pair_of_numbers(task):
    assert not pairs(task.rows("train", 6000, 0)) & pairs(task.rows("test", 500, 0))


def test_too_many_rows_are_refused(task):
    with pytest.raises(ValueError, match="rows available"):
        task.rows("test", 10**7, 0)


def test_the_prompt_leads_to_the_answer(task):
    (row,) = task.rows("test", 1, 0)
    assert task.prompt.ask(row) == f"Question: {row['instruction']}\nAnswer:"
    assert task.prompt.answer(row) == f" {row['output']}"
