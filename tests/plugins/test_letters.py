"""Letters as answers: how they are read, compared, and when they are settled."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad_plugins.tasks.declared import declarations
from llmad_plugins.tasks.letters import LetterJudge

DECLARES_D = [
    "The answer is (D).",
    "The answer is D",
    "The answer is D.",
    "The answer is: D",
    "The answer is (d)",
    "Answer is D",
    "the answer is D) 25",
    "the answer is d) 25",
    "The answer is ( D )",
    "The answer is [D]",
    'The answer is "D".',
    "The answer is 'D'.",
    "The answer is `D`",
    "The answer is **(D)**",
    "The answer is **D) 25**",
    "The answer is D: 25",
    "The answer is therefore (D)",
    "The answer is, therefore, (D).",
    "The answer is most likely (D)",
    "ANSWER:D",
    "The answer would be (D)",
    "the answer must be (D)",
    "The answer appears to be D.",
    "The answer\nis (D)",
    "the correct answer is option (D)",
    "the answer is choice D",
    "answer is letter D",
    "The answer is option **D**",
    "The answer choice is (D)",
    "The correct answer choice is (D).",
    "the correct option is D",
    "Correct Option: D",
    "the correct choice is (D)",
    "The closest answer is (D)",
    "The answer to the question is (D)",
    "The answer, then, is D",
    "The answer (in km) is (D)",
    "Therefore, the option is (D).",
    "Answer: D",
    "Answer : D",
    "Ans: D",
    "Answer = D",
    "**Answer:** D",
    "**Answer**: D",
    "**The correct answer is:** D",
    "Final Answer: (D)",
    "Answer: D. 25",
    "Answer (D)",
    "#### D",
    r"The answer is $\boxed{D}$",
    r"\boxed{(D)}",
    r"The answer is $\boxed{\text{(D) } 12}$",
    r"The answer is \(D\)",
    "Therefore, the answer is (D) 12 apples",
    "The answer is D 12 apples",
    "The answer is D because 5 > 3",
    "So it is 5.The answer is (D).",
    # later in the sentence
    "The answer is none of these (D)",
    "The answer is 25, which is (D)",
    "The answer is 36 km/h (D)",
    "Answer: 25 (D)",
    "The answer is Rs. 666 (D).",
    "The answer is 25. (D)",
    "The answer is cannot be determined (D).",
    "The answer is 25, option D.",
    "The answer is zy – 2x / z (D)",
    "The answer is the third one, (D).",
    "The answer is 25, which is option D.",
    # without a cue
    "(D) is the correct answer",
    "option D is correct",
    "D is the correct choice",
    "D is the answer.",
    "Hence D is correct.",
    "So, (D) is the correct choice",
    "So (D) 12 km is the correct answer.",
    "option (D) 25% is correct",
    "Hence, option D.",
    "Thus (D).",
    "which corresponds to option (D).",
    "This matches option D",
    "We choose option D.",
    "I pick (D).",
    "Answer choice D.",
    "Answer - D",
    "The answer comes to (D).",
    "The answer is closest to (D) 27.",
    r"The answer is $\textbf{(D)}\ 26$",
    "The answer is 26, so the correct answer choice is (D).",
    "Rs. 300\nOption D",
    "We get 25. Option (D).",
    "Thus option (D) is the right answer",
    # the last one counts
    "The answer is (A). No, the answer is (D).",
    "(A) is correct? No: the answer is (D).",
    "The answer is (D), not (C).",
    "Answer Choices: (A) 1 (B) 2. The answer is (D)",
    "Option A is wrong. The answer is D, not C.",
    "The answer is (D). I am sure.",
]
DECLARES_NONE = [
    "",
    "A",
    "(D)",
    "A train travels 60 km",
    "Answer: A train travels",
    "The answer is A train",
    "the answer is a dog",
    "The answer is Dog",
    "the answer is DNA",
    "The answer is F",
    "The answer is (F)",
    "the answer is e",
    "The answer is A's age",
    "Answer Choices: (A) 1 (B) 2",
    "Answer choices are (A) 1 (B) 2",
    "Answer options: A) 1 B) 2",
    "the answers are in A",
    "Option A is wrong",
    "Option C is not correct",
    "Option C is incorrect",
    "Let us check option A.",
    "Option A. 25 Option B. 30",
    "Option A\nIt is too small.",
    "If option C is correct, then",
    "we check whether (C) is the correct answer",
    "Neither B is correct",
    "The answer is not (D)",
    "The answer is not option D.",
    "The answer is 25, not (D)",
    "The answer isn't D",
    "the answer cannot be (D)",
    "If the answer is (D), then",
    "The answer is either A or B",
    "The answer is A and B",
    "The answer is 25, (A) or (B)",
    "The answer is A + B",
    "The answer is D/(M-3)",
    "The answer is D = 25",
    "Let A be the age. So A, B and C are",
    "Statement (A) is correct",
    "Let the marked price of the watch be x.",
    "The answer is unknown.",
    "Because 5 is correct, A is wrong",
]
SETTLED = {
    "The answer is (D)": True,
    "The answer is (D": False,
    "The answer is D": False,
    "The answer is D ": False,
    "The answer is D.": True,
    "The answer is D\n": True,
    "The answer is A ": False,
    "The answer is 25, which is (D)": False,
    "The answer is 25, which is (D). ": False,
    "The answer is 25, which is (D).\n": True,
    "The answer is 25, which is (D). It": True,
    "D is correct": False,
    "(D)": False,
}
PIECES = [
    *"ABCDEabcde(). ,/+-=*\n'!?:;$}",
    " and ",
    " or ",
    " is ",
    "not ",
    "because ",
    "apples",
    "(A)",
    "(B)",
    "25",
    "which is ",
    " km",
    "**",
    " the ",
]
written = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)


@pytest.mark.parametrize("text", DECLARES_D)
def test_strict_reads_the_letter_that_was_declared_last(text):
    assert LetterJudge().read(text, "strict") == "D"
    assert LetterJudge().read(f"\nRationale: Let A be (B) and C.\n{text}", "strict") == "D"


@pytest.mark.parametrize("text", DECLARES_NONE)
def test_strict_reads_no_letter_that_was_not_declared(text):
    assert LetterJudge().read(text, "strict") is None


@pytest.mark.parametrize(
    ("text", "answer"), {"The answer is D": "D", "So C, not D": "C", "An apple": "A", "none": None}.items()
)
def test_paper_reads_the_first_capital(text, answer):
    assert LetterJudge().read(text, "paper") == answer


@pytest.mark.parametrize(("text", "settled"), SETTLED.items())
def test_a_letter_is_settled_once_nothing_may_be_added_to_it(text, settled):
    assert LetterJudge().settled(text) is settled


@given(
    st.sampled_from(["The answer is ", "Let (A) be. Answer: ", "#### ", r"\boxed{", "The correct option is "]),
    written,
    written,
)
def test_what_is_settled_stays_until_it_is_declared_anew(cue, text, more):
    judge, text = LetterJudge(), cue + text
    if judge.settled(text) and len(declarations(text + more)) == len(declarations(text)):
        assert judge.read(text + more, "strict") == judge.read(text, "strict")


@given(st.text(), st.sampled_from(["strict", "paper"]))
def test_a_letter_or_none_is_read_of_any_text(text, protocol):
    for given_text in (text, f"The answer is {text}"):
        found = LetterJudge().read(given_text, protocol)
        assert found is None or re.fullmatch("[A-E]", found)


def test_letters_agree_where_they_are_the_same():
    assert LetterJudge().agree("B", " b ")
    assert not LetterJudge().agree("B", "C")
