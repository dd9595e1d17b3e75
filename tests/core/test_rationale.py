"""How a rationale is asked for, and what replies are worth."""

import pytest

from llmad.errors import DataError
from llmad.rationale import Said, check, first, judged, second, unanswered
from llmad.registry import registry
from llmad.teacher import Reply

ROW = {"instruction": "3 + 4?", "input": "", "answer": "7"}
LETTER = {"instruction": "Which? (A) 1 (B) 2", "answer": "B"}


@pytest.fixture
def task():
    return registry().task("math")


def said(text, finished=True, more=None):
    return Said(0, Reply(text, finished), more)


def test_the_question_asks_for_steps_and_a_declaration():
    assert first(ROW) == (
        'Q: 3 + 4?\nEnd with "The answer is X.", where X is a number.\nA: Let\'s think step by step.',
    )


def test_an_input_belongs_to_the_question():
    assert first({**ROW, "input": "Use your fingers."})[0].startswith("Q: 3 + 4?\nUse your fingers.\nEnd with")


def test_braces_of_a_row_are_left_alone():
    assert "{form} {0}" in first({**ROW, "instruction": "{form} {0}"})[0]


@pytest.mark.parametrize(
    ("answer", "form"),
    [("7", "a number"), ("1,000.5", "a number"), ("-3", "a number"), ("B", "the letter of the right choice"),
     ("e", "the letter of the right choice"), ("true", "the right choice, in the words of the question"),
     ("answer2", "the right choice, in the words of the question")],
)  # fmt: skip
def test_the_kind_of_answer_is_told_and_the_answer_not(answer, form):
    (question,) = first({"instruction": "?", "answer": answer})
    assert f"where X is {form}.\n" in question
    assert f" {answer}" not in question.replace(form, "")


def test_the_second_question_follows_the_reply():
    assert second(ROW, "3 and 4 make 7.") == (*first(ROW), "3 and 4 make 7.", "Therefore, the answer (a number) is")


@pytest.mark.parametrize(
    ("text", "finished", "open_"),
    [("It is 7.", True, True), ("The answer is 7.", True, False), ("It is", False, False), (" \n", True, False)],
)
def test_the_second_question_is_asked_where_it_helps(task, text, finished, open_):
    assert unanswered(task, ROW, Reply(text, finished)) == open_


@pytest.mark.parametrize(
    ("reply", "text", "verdict"),
    [
        (said(" 3 + 4 = 7. The answer is 7.\n"), "3 + 4 = 7. The answer is 7.", "right"),
        (said("The answer is **7**."), "The answer is **7**.", "right"),
        (said("The answer is 8."), "The answer is 8.", "wrong"),
        (said("It is seven."), "It is seven.", "no answer"),
        (said("The answer is 7", finished=False), "The answer is 7", "cut off"),
        (said("3 and 4.", more=" 7.\n\nQ: 5?"), "3 and 4. The answer is 7.", "right"),
        (said("3 and 4.", more="**7** apples"), "3 and 4. The answer is 7.", "right"),
        (said("3 and 4.", more="The answer is $8."), "3 and 4. The answer is 8.", "wrong"),
        (said("3 and 4.", more="9.\nThe answer is 7."), "3 and 4. The answer is 9.", "wrong"),
        (said("3 and 4.", more="who knows"), "3 and 4.", "no answer"),
        (said("3 and 4.", more=" "), "3 and 4.", "no answer"),
        (said(""), "", "no answer"),
    ],
)
def test_replies_and_what_they_are_worth(task, reply, text, verdict):
    found = judged(task, ROW, reply)
    assert (found.text, found.verdict) == (text, verdict)


@pytest.mark.parametrize("more", ["(B) 2", "B", "B.", "Therefore, the answer is (B)."])
def test_letters_are_read_as_well(task, more):
    assert judged(task, LETTER, said("One is not it.", more=more)).text == "One is not it. The answer is B."


def test_rows_whose_answer_can_be_declared_pass(task):
    check(task, [ROW, LETTER, {**ROW, "answer": "1,000"}, {**ROW, "answer": "-0.5"}])


@pytest.mark.parametrize(("answer", "reason"), [("seven", "could not convert"), ("1_000", "is read as 1")])
def test_a_row_that_nobody_could_get_right_is_refused(task, answer, reason):
    with pytest.raises(DataError, match=f"task math, row 2: .*{reason}"):
        check(task, [ROW, {**ROW, "answer": answer}])
