"""The generated word problems: right, distinct, and disjoint between train and test."""

import re

import pytest

from llmad_plugins.tasks.math import judge
from llmad_plugins.tasks.word_problems import TEST, TRAIN, generate, problems, solve

SPLITS = ("train", "test")


@pytest.mark.parametrize("split", SPLITS)
def test_the_worked_answer_is_right_and_read_as_such(split):
    for row in generate(split, 800, seed=3):
        a, operation, b, result = re.match(r"(\d+) (.) (\d+) = (\d+)\.", row["output"]).groups()
        assert solve(operation, int(a), int(b)) == int(result) == int(row["answer"])
        judged = judge(row["answer"])
        assert judged.agree(judged.read(row["output"], "strict"), row["answer"])


@pytest.mark.parametrize("split", SPLITS)
def test_both_numbers_stand_in_the_question(split):
    for row in generate(split, 400):
        numbers = re.findall(r"\d+", row["instruction"])
        assert sorted(numbers) == sorted(re.findall(r"\d+", row["output"])[:2])


def test_train_and_test_share_no_template():
    train, test = ({line for text in split.values() for line in text.strip().splitlines()} for split in (TRAIN, TEST))
    assert not train & test
    assert all(len(text.strip().splitlines()) >= 4 for text in TEST.values())


@pytest.mark.parametrize("operation", list(TRAIN))
def test_train_and_test_share_no_pair_of_numbers(operation):
    pairs = [{(a, b) for _, _, a, b in problems(split, operation)} for split in SPLITS]
    assert all(pairs)
    assert not pairs[0] & pairs[1]


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_distinct_and_a_function_of_the_seed(split):
    rows = generate(split, 1000, seed=1)
    assert len({row["instruction"] for row in rows}) == 1000
    assert rows == generate(split, 1000, seed=1)
    assert rows != generate(split, 1000, seed=2)


def test_more_rows_than_there_are_is_an_error_with_their_number():
    with pytest.raises(ValueError, match=r"\d+ rows available"):
        generate("test", 10**6)
