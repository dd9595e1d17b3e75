"""Where a text declares its answer, and when nothing can change it any more."""

import time

import pytest

from llmad_plugins.tasks.declared import declarations, endings, sentence, settled
from llmad_plugins.tasks.labels import LabelJudge
from llmad_plugins.tasks.letters import LetterJudge
from llmad_plugins.tasks.numbers import NumberJudge

CUES = [
    "The answer is X",
    "THE ANSWER IS X",
    "Answer: X",
    "**Answer:** X",
    "**Answer**: X",
    "Answer = X",
    "Answer -> X",
    "Ans: X",
    "The final answer would be X",
    "The answer must be X",
    "The answer turns out to be X",
    "The answer, then, is X",
    "The answer to the question is X",
    "The answer (in km) is X",
    "The answer choice is X",
    "The correct option is X",
    "Correct choice: X",
    "#### X",
    r"so \boxed{X}",
]
NO_CUES = [
    "X",
    "Answer Choices: X",
    "The answers are X",
    "The answer cannot be X",
    "The answer isn't X",
    "If the answer is X",
    "Suppose that the correct answer is X",
    "whether our final answer is X",
    "I answered X",
    "#### Step X: what is asked",
    "Answer:\n1. First X",
]


@pytest.mark.parametrize("text", CUES)
def test_a_cue_declares_what_follows(text):
    ((_, rest),) = declarations(f"First. {text}")
    assert rest.strip(" *}") == "X"


@pytest.mark.parametrize("text", NO_CUES)
def test_what_is_asked_supposed_or_denied_declares_nothing(text):
    assert not [rest for _, rest in declarations(text) if rest.strip(" *") == "X"]


def test_declarations_come_in_the_order_of_the_text():
    assert [rest[:2] for _, rest in declarations("The answer is 1. No, the answer is 2.")] == [" 1", " 2"]


@pytest.mark.parametrize(("text", "first"), [
    ("\n25 km (D). So it is", "25 km (D)"), ("Rs. 25 (D).", "Rs. 25 (D)"), ("25\n(D)", "25"), ("25", "25"),
])  # fmt: skip
def test_a_sentence_ends_at_its_mark_or_line(text, first):
    assert sentence(text) == first


def test_endings_are_all_ways_to_go_on_from_inside():
    assert endings("abc", "bc") == ("abc", "bc", "c")


def test_settled_is_what_no_growth_changes():
    def read(text):
        return text.rstrip("!") or None

    assert settled("a", read, ["!", "!!"])
    assert not settled("a", read, ["!", "b!c"])
    assert not settled("", read, ["!"])


@pytest.mark.parametrize("judge", [NumberJudge(), LetterJudge(), LabelJudge(("answer1", "answer2"))])
@pytest.mark.parametrize("unit", [
    "\\the{", "the = ", "the ", "answer is ", "x = ", "3 + 4 = ", "3 + ", "(", "answer for a ", " ", "(A) ", "answer1 ",
    "not the ", "1/", "1,", "1 ", "####", "\\boxed{", "if the ",
])  # fmt: skip
def test_no_text_takes_long_to_read(judge, unit):
    began = time.perf_counter()
    judge.read("The answer is " + unit * 300 + "z", "strict")
    assert time.perf_counter() - began < 2
