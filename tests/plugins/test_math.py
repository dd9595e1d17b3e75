"""The math sets: how answers are read and compared."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad import rows
from llmad.registry import registry
from llmad_plugins.tasks.math import ALPACA, LetterJudge, NumberJudge, judge

MATH = Path(__file__).parents[2].parent / "shared" / "data" / "math"
SETS = ["addsub", "aqua", "gsm8k", "multiarith", "singleeq", "svamp"]
present = pytest.mark.skipif(not MATH.is_dir(), reason=f"the math sets are not at {MATH}")

STRICT_NUMBERS = {
    "3 + 4 = 7. The answer is 7.": "7",
    "The answer is 4": "4",
    "The answer is -3.": "-3",
    "The answer is 2.50.": "2.50",
    "The answer is .5": ".5",
    "The answer is -.5": "-.5",
    "The answer is 1,234,567.": "1234567",
    "The answer is 1,2345": "1",
    "The answer is $5": "5",
    "The answer is $1,200.50.": "1200.50",
    "The answer is -$5": "-5",
    "The answer is €5": "5",
    "The answer is 12%": "12",
    "The answer is **5**": "5",
    "The answer is **-5**": "-5",
    "The answer is: 5": "5",
    "The answer is\n5": "5",
    "THE ANSWER IS 5": "5",
    "The answer is (5)": "5",
    "The answer is 1. No, the answer is 2. Then 3.": "2",
    "7": None,
    "": None,
    "The answer is seven.": None,
    "The answer is x5": None,
}
PAPER_NUMBERS = {
    "There are 3 and 4, so 7.": "7",
    "The answer is 7. Or -8": "-8",
    "1,234.5 coins": "1234.5",
    "none": None,
    "3-4": "-4",  # as in the released scripts
}
STRICT_LETTERS = {
    "The answer is D": "D",
    "The answer is D.": "D",
    "The answer is (D)": "D",
    "The answer is (d)": "D",
    "The answer is **(D)**": "D",
    "The answer is: E": "E",
    "The answer is B. Or the answer is C.": "C",
    "the answer is a dog": None,
    "The answer is Dog": None,
    "The answer is F": None,
    "A": None,
}
PAPER_LETTERS = {"The answer is D": "D", "So C, not D": "C", "none": None}


@pytest.mark.parametrize(("text", "answer"), STRICT_NUMBERS.items())
def test_strict_reads_the_number_that_was_declared_last(text, answer):
    assert NumberJudge().read(text, "strict") == answer


@pytest.mark.parametrize(("text", "answer"), PAPER_NUMBERS.items())
def test_paper_reads_the_last_number(text, answer):
    assert NumberJudge().read(text, "paper") == answer


@pytest.mark.parametrize(("text", "answer"), STRICT_LETTERS.items())
def test_strict_reads_the_letter_that_was_declared_last(text, answer):
    assert LetterJudge().read(text, "strict") == answer


@pytest.mark.parametrize(("text", "answer"), PAPER_LETTERS.items())
def test_paper_reads_the_first_capital(text, answer):
    assert LetterJudge().read(text, "paper") == answer


@given(st.text(), st.sampled_from(["strict", "paper"]))
def test_what_is_read_can_be_compared(text, protocol):
    for own, gold in ((NumberJudge(), "7"), (LetterJudge(), "B")):
        for given_text in (text, f"The answer is {text}"):
            found = own.read(given_text, protocol)
            assert found is None or own.agree(found, gold) in (True, False)


@given(st.decimals(-(10**9), 10**9, places=2))
def test_a_declared_number_is_read_as_it_is(number):
    for shown in (f"{number:f}", f"{number:,f}"):
        found = NumberJudge().read(f"The answer is {shown}.", "strict")
        assert NumberJudge().agree(found, str(number))


@pytest.mark.parametrize(("answer", "gold", "right"), [
    ("4", "4.0", True), ("4.0004", "4", True), ("4.01", "4", False), ("-4", "4", False), ("1234", "1,234", True),
])  # fmt: skip
def test_numbers_agree_within_a_thousandth(answer, gold, right):
    assert NumberJudge().agree(answer, gold) is right


def test_letters_agree_where_they_are_the_same():
    assert LetterJudge().agree("B", " b ")
    assert not LetterJudge().agree("B", "C")


@pytest.mark.parametrize(("gold", "kind"), [
    ("4", NumberJudge), ("-4.5", NumberJudge), ("1,200", NumberJudge), ("C", LetterJudge), (" c ", LetterJudge),
])  # fmt: skip
def test_the_right_answer_says_which_judge(gold, kind):
    assert isinstance(judge(gold), kind)


@pytest.mark.parametrize("gold", ["seven", "", "F", "nan", "inf", "1/2"])
def test_a_right_answer_that_is_neither_is_refused(gold):
    with pytest.raises(ValueError, match=r"number|convert"):
        judge(gold)


def test_the_prompt_is_the_papers():
    asked = ALPACA.ask({"instruction": "1 + 1?", "input": ""})
    assert asked.endswith("### Instruction:\n1 + 1?\n\n### Response:\n")
    assert "### Input:\nx\n\n### Response:" in ALPACA.ask({"instruction": "1?", "input": "x"})


def test_the_six_sets_and_the_free_one_are_offered():
    assert {name for name, _ in registry().offers("task")} >= {"math", *SETS}


@present
@pytest.mark.parametrize("name", SETS)
def test_every_right_answer_of_the_sets_is_read(name):
    found = rows.rows(registry().task(name), "test", str(MATH), 0, 0).rows
    assert found
    for row in found:
        own = judge(row["answer"])
        assert own.agree(own.read(f"The answer is {row['answer']}.", "strict"), row["answer"])


@present
def test_strict_reads_what_the_training_set_teaches():
    found = rows.rows(registry().task("math"), "train", str(MATH), 0, 0).rows
    unread = [row["output"] for row in found if judge(row["answer"]).read(row["output"], "strict") is None]
    assert len(unread) < 0.01 * len(found)
    assert not [text for text in unread if "The answer is" in text and "unknown" not in text]
