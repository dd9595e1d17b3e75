"""Labels as answers: how they are read, compared, and when they are settled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad_plugins.tasks.declared import declarations
from llmad_plugins.tasks.labels import LabelJudge, label_judge

ANSWERS = LabelJudge(("answer1", "answer2", "answer3", "answer4", "answer5"))
TRUTH = LabelJudge(("true", "false"))
OPTIONS = LabelJudge(("option1", "option2"))
SOLUTIONS = LabelJudge(("solution1", "solution2"))
STRICT = [
    (ANSWERS, "the correct answer is answer1", "answer1"),
    (ANSWERS, "the correct answer is Answer2", "answer2"),
    (ANSWERS, "the correct answer is answer 3.", "answer3"),
    (ANSWERS, "the correct answer is: answer3: a dog", "answer3"),
    (ANSWERS, "**answer3**", "answer3"),
    (ANSWERS, "answer3\nIt is a dog.", "answer3"),
    (ANSWERS, "answer4 is the correct answer", "answer4"),
    (ANSWERS, "the correct answer is answer1 the correct answer is answer2", "answer2"),
    (ANSWERS, "The answer is a dog, answer5.", "answer5"),
    (TRUTH, "The answer is true.", "true"),
    (TRUTH, "the answer is TRUE", "true"),
    (TRUTH, "The answer is that this is false", "false"),
    (TRUTH, "true", "true"),
    (OPTIONS, "option 1", "option1"),
    (OPTIONS, "The correct option is option2", "option2"),
    (OPTIONS, "The answer is option 2", "option2"),
    (OPTIONS, "So option1 is correct.", "option1"),
    (SOLUTIONS, "Answer: solution2", "solution2"),
    (ANSWERS, "the correct answer is answer6", None),
    (ANSWERS, "the correct answer is answer12", None),
    (ANSWERS, "the correct answer is not answer1", None),
    (ANSWERS, "answer1 is wrong", None),
    (ANSWERS, "Answer format: answer1/answer2/answer3", None),
    (ANSWERS, "the correct answer is answer1/answer2", None),
    (ANSWERS, "Answer1: cats Answer2: dogs", None),
    (ANSWERS, "The answer is 2", None),
    (ANSWERS, "", None),
    (TRUTH, "untrue", None),
    (TRUTH, "The answer is not true", None),
    (TRUTH, "the correct answer is true or false", None),
    (TRUTH, "It is true that cats are dogs", None),
]
PAPER = [
    (TRUTH, "That is untrue, so false", "true"),
    (TRUTH, "The answer is True", None),
    (ANSWERS, "Not answer1 but answer2", "answer1"),
    (ANSWERS, "answer12", "answer1"),
    (ANSWERS, "answer6", None),
    (OPTIONS, "option 1", None),
]
SETTLED = [
    (ANSWERS, "the correct answer is answer1", False),
    (ANSWERS, "the correct answer is answer1 ", False),
    (ANSWERS, "the correct answer is answer1.", True),
    (ANSWERS, "the correct answer is answer1\n", True),
    (TRUTH, "the correct answer is true", False),
    (TRUTH, "the correct answer is true\n", True),
    (ANSWERS, "**answer3**\n", True),
    (ANSWERS, "answer3", False),
]
PIECES = [
    "answer1",
    "Answer 3",
    "true",
    "false",
    *" \n.,/:x()",
    " or ",
    " and ",
    "not ",
    "1",
    "6",
    "dog",
    "**",
    " is ",
    "untrue",
]
written = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@pytest.mark.parametrize(("judge", "text", "answer"), STRICT)
def test_strict_reads_the_label_that_was_declared_last(judge, text, answer):
    assert judge.read(text, "strict") == answer


@pytest.mark.parametrize(("judge", "text", "answer"), PAPER)
def test_paper_reads_the_first_label_that_is_mentioned(judge, text, answer):
    assert judge.read(text, "paper") == answer


@pytest.mark.parametrize(("judge", "text", "settled"), SETTLED)
def test_a_label_is_settled_once_nothing_may_be_added_to_it(judge, text, settled):
    assert judge.settled(text) is settled


@given(st.sampled_from([ANSWERS, TRUTH]), st.sampled_from(["the correct answer is ", "Answer: "]), written, written)
def test_what_is_settled_stays_until_it_is_declared_anew(judge, cue, text, more):
    text, more = cue + text, more.replace("\n", " ")  # a line of its own would be a new declaration
    if text.endswith("\n") or not judge.settled(text) or len(declarations(text + more)) > len(declarations(text)):
        return
    assert judge.read(text + more, "strict") == judge.read(text, "strict")


@given(st.text(), st.sampled_from(["strict", "paper"]))
def test_a_label_or_none_is_read_of_any_text(text, protocol):
    for given_text in (text, f"The answer is {text}"):
        assert ANSWERS.read(given_text, protocol) in (None, *ANSWERS.labels)


@pytest.mark.parametrize("label", ANSWERS.labels)
def test_labels_agree_where_they_are_the_same(label):
    assert ANSWERS.agree(label, f" {label}")
    assert not ANSWERS.agree(label, "answer9")


def test_the_right_answer_says_which_family_of_labels():
    judge = label_judge(TRUTH.labels, OPTIONS.labels)
    assert judge("true") == TRUTH
    assert judge(" option2") == OPTIONS
    with pytest.raises(ValueError, match="'answer1' is none of true, false, option1, option2"):
        judge("answer1")
