"""Numbers as answers: how they are read, compared, and when they are settled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad_plugins.tasks.declared import declarations
from llmad_plugins.tasks.numbers import NumberJudge, number

STRICT = {
    "3 + 4 = 7. The answer is 7.": "7",
    "The answer is 4": "4",
    "The answer is -3.": "-3",
    "The answer is −3.": "-3",
    "The answer is +15.": "15",
    "The answer is 2.50.": "2.50",
    "The answer is .5": ".5",
    "The answer is -.5": "-.5",
    "The answer is 1,234,567.": "1234567",
    "The answer is $118 000.": "118000",
    "The answer is $5": "5",
    "The answer is $1,200.50.": "1200.50",
    "The answer is -$5": "-5",
    "The answer is $-5": "-5",
    "The answer is Rs. 50": "50",
    "The answer is €5": "5",
    "The answer is 1000$.": "1000",
    "The answer is 12%": "12",
    "The answer is **5**": "5",
    "The answer is **-5**": "-5",
    "The answer is: 5": "5",
    "The answer is\n5": "5",
    "THE ANSWER IS 5": "5",
    "The answer is (5)": "5",
    "The answer is approximately 3.5 hours": "3.5",
    "The answer is about $5.": "5",
    "So the answer is still 38.": "38",
    "Answer: 7": "7",
    "**Answer:** 12": "12",
    "The final answer is 12": "12",
    "#### 42": "42",
    r"so \boxed{42}.": "42",
    r"The answer is $\boxed{42}$.": "42",
    "The answer is 1. No, the answer is 2. Then 3.": "2",
    "The answer is 6th.": "6",
    "The answer is 4200 / hour.": "4200",
    "The answer is 70 push-ups and 4 crunches.": "70",
    "The answer is 25, which is (D)": "25",
    "The answer is 5. 3 + 4 = 7": "5",
    # fractions and powers of ten
    "The answer is 3/4": "0.75",
    "The answer is -1/2.": "-0.5",
    "The answer is 1/3": "0.3333333333333333",
    "The answer is 4 1/2 hours": "4.5",
    r"The answer is $\frac{3}{4}$.": "0.75",
    "The answer is 1e3": "1e3",
    # of an equation, the right-hand side
    "The answer is x = 5.": "5",
    "The answer is 4 + 16 + 20 = 40.": "40",
    "The answer is 12 - 34 = -22 slices.": "-22",
    "The answer is 43 - (-51) = 94.": "94",
    "The answer is $5 + $3 = $8": "8",
    "The answer is 3 * (4 + 5) = 27": "27",
    r"The answer is $x = \boxed{5}$": "5",
    # none, or no single one
    "7": None,
    "": None,
    "The answer is seven.": None,
    "The answer is x5": None,
    "The answer is 5x": None,
    "The answer is not 19.": None,
    "The answer is 1,2345": None,
    "The answer is 1.234,56": None,
    "The answer is 1.234.567": None,
    "The answer is 20 and 30": None,
    "The answer is 2 or 3.": None,
    "The answer is 5, 6": None,
    "The answer is 10-20": None,
    "The answer is 3:2": None,
    "The answer is 3:00 pm.": None,
    "The answer is 18 + x hours.": None,
    "The answer is 3 times 5": None,
    "The answer is 2^5": None,
    "The answer is 5k": None,
    "The answer is 4'000": None,
    "The answer is 20 + 30": None,
    "The answer is 1,000/3": None,
    "The answer is 3/4/5": None,
    "The answer is 1/0": None,
    "The answer is < 5": None,
    "The answer is - 5": None,
    "If the answer is 5 then": None,
    "Answer:\n1. First, add": None,
    "#### 1. Add them": None,
}
PAPER = {
    "There are 3 and 4, so 7.": "7",
    "The answer is 7. Or -8": "-8",
    "1,234.5 coins": "1234.5",
    "none": None,
    "3-4": "-4",  # as in the released scripts
}
SETTLED = {
    "The answer is 4": False,  # 42
    "The answer is 4.": False,  # 4.5
    "The answer is 4,": False,  # 4,000
    "The answer is 4 ": False,  # 4 + 3 = 7
    "The answer is 4 a": False,  # 4 and 5
    "The answer is 3/4 ": False,
    "The answer is x = 4": False,
    "#### 4 ": False,
    "Answer:\n4.": False,  # 4. Then
    "4 apples": False,
    "The answer is 4. ": True,
    "The answer is 4.\n": True,
    "The answer is 4\n": True,
    "The answer is 4 apples": True,
    "The answer is $4.50 e": True,
    "The answer is 3/4.\n": True,
    "#### 4\n": True,
}
PIECES = [
    *"0123456789.,/ $%()-+*x=^:ekm\n'!?€²×",
    *(" and ", " or ", " to ", ", ", "apples", "km/h", " is ", "**", r"\frac{1}{2}", ". So", "th", " times ", " 000"),
]
written = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)


@pytest.mark.parametrize(("text", "answer"), STRICT.items())
def test_strict_reads_the_number_that_was_declared_last(text, answer):
    assert NumberJudge().read(text, "strict") == answer


@pytest.mark.parametrize(("text", "answer"), PAPER.items())
def test_paper_reads_the_last_number(text, answer):
    assert NumberJudge().read(text, "paper") == answer


@pytest.mark.parametrize(("text", "settled"), SETTLED.items())
def test_a_number_is_settled_once_it_cannot_grow(text, settled):
    assert NumberJudge().settled(text) is settled


@given(
    st.sampled_from(["The answer is ", "3 + 4. Answer: ", "#### ", r"\boxed{", "The answer is x = "]), written, written
)
def test_what_is_settled_stays_until_it_is_declared_anew(cue, text, more):
    judge, text = NumberJudge(), cue + text
    if judge.settled(text) and len(declarations(text + more)) == len(declarations(text)):
        assert judge.read(text + more, "strict") == judge.read(text, "strict")


@given(st.text(), st.sampled_from(["strict", "paper"]))
def test_what_is_read_can_be_compared(text, protocol):
    for given_text in (text, f"The answer is {text}"):
        found = NumberJudge().read(given_text, protocol)
        assert found is None or NumberJudge().agree(found, "7") in (True, False)


@given(st.decimals(-(10**9), 10**9, places=2))
def test_a_declared_number_is_read_as_it_is(value):
    for shown in (f"{value:f}", f"{value:,f}"):
        found = NumberJudge().read(f"The answer is {shown}.", "strict")
        assert NumberJudge().agree(found, str(value))


@pytest.mark.parametrize(("answer", "gold", "right"), [
    ("4", "4.0", True), ("4.0004", "4", True), ("4.01", "4", False), ("-4", "4", False), ("1234", "1,234", True),
    ("9" * 400, "4", False), ("1e999", "4", False), ("0.6666666666666666", "0.6667", True),
])  # fmt: skip
def test_numbers_agree_within_a_thousandth(answer, gold, right):
    assert NumberJudge().agree(answer, gold) is right


@pytest.mark.parametrize("gold", ["seven", "", "nan", "inf", "1/2"])
def test_a_right_answer_that_is_no_number_is_refused(gold):
    with pytest.raises(ValueError, match=r"number|convert"):
        number(gold)
