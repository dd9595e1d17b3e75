"""The math sets' own layouts, made into the paper's rows."""

import json
from pathlib import Path

import pytest

from llmad_plugins.tasks.math_layouts import any_set, aqua, gsm8k, solved, svamp

MATH = Path(__file__).parents[2].parent / "shared" / "data" / "math"

GSM8K = {
    "question": "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many in all?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 48+24 = <<48+24=72>>72 clips in all.\n#### 72",
}
AQUA = {
    "question": "Find out which of the following values is the multiple of X, if it is divisible by 9 and 12?",
    "options": ["A)36", "B)15", "C)17", "D)5", "E)7"],
    "rationale": "9=3*3\n12=3*4\nAnswer is A",
    "correct": "A",
}
ROOTS = {
    "question": "A car is being driven, in a straight line and at a uniform speed, towards the base of a vertical "
    "tower. The top of the tower is observed from the car and, in the process, it takes 10 minutes for the angle of "
    "elevation to change from 45° to 60°. After how much more time will this car reach the base of the tower?",
    "options": ["A)5(√3 + 1)", "B)6(√3 + √2)", "C)7(√3 – 1)", "D)8(√3 – 2)", "E)None of these"],
    "correct": "A",
}
SVAMP = {
    "ID": "chal-1",
    "Body": "Each pack of dvds costs 76 dollars. If there is a discount of 25 dollars on each pack",
    "Question": "How much do you have to pay to buy each pack?",
    "Answer": 51.0,
}
PACO = {
    "Body": "Paco had 41 cookies. He gave 9 cookies to his friend and ate 18 cookies.",
    "Question": "How many more cookies did he eat than those he gave to his friend?",
    "Answer": "9.0",
}
ADDSUB = {
    "lSolutions": ["43"],
    "sQuestion": "Joan found 70 seashells on the beach . she gave Sam some of her seashells . She has 27 seashell . "
    "How many seashells did she give to Sam ? ",
}
MULTIARITH = {
    "lSolutions": [8.0],
    "sQuestion": " A pet store had 13 siamese cats and 5 house cats. During a sale they sold 10 cats. How many cats do "
    "they have left? ",
}
SINGLEEQ = {
    "lSolutions": [43.0],
    "sQuestion": "Joan found 70 seashells on the beach. she gave Sam some of her seashells. She has 27 seashell left. "
    "How many seashells did she give to Sam ?",
}
REAL = [("AQuA", AQUA), ("AQuA", ROOTS), ("SVAMP", SVAMP), ("SVAMP", PACO), ("AddSub", ADDSUB),
        ("MultiArith", MULTIARITH), ("SingleEq", SINGLEEQ)]  # fmt: skip


def test_gsm8k_keeps_the_working_without_the_calculator():
    assert gsm8k(GSM8K) == {
        "instruction": GSM8K["question"],
        "input": "",
        "output": "She sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 clips in all.\nThe answer is 72.",
        "answer": "72.0",
    }


def test_thousands_lose_their_commas():
    row = gsm8k({**GSM8K, "answer": "Many.\n#### 1,234,500"})
    assert (row["output"], row["answer"]) == ("Many.\nThe answer is 1234500.", "1234500.0")


def test_aqua_lists_its_choices_as_the_paper_does():
    row = aqua(AQUA)
    assert row["instruction"] == f"{AQUA['question']} Answer Choices: (A) 36 (B) 15 (C) 17 (D) 5 (E) 7"
    assert row["output"] == "9=3*3\n12=3*4\nAnswer is A\nThe answer is (A)."
    assert aqua(ROOTS)["output"] == "The answer is (A)."


def test_svamp_joins_body_and_question():
    assert svamp(SVAMP)["instruction"].endswith("on each pack. How much do you have to pay to buy each pack?")
    assert svamp(SVAMP)["output"] == "The answer is 51."


@pytest.mark.parametrize(("name", "entry"), REAL)
def test_real_entries_become_the_papers_rows(name, entry):
    path = MATH / name / "test.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    found = any_set(entry)
    rows = {row["instruction"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    assert rows[found["instruction"]]["answer"] == found["answer"]
    assert rows[found["instruction"]]["input"] == found["input"]


@pytest.mark.parametrize("convert", [gsm8k, aqua, svamp, solved, any_set])
@pytest.mark.parametrize("entry", [
    {}, {"instruction": "1?", "output": "1", "answer": "1"}, {"question": "Is it?", "answer": True}, {"question": 1},
    {"question": "Is it?", "answer": "no"},
])  # fmt: skip
def test_another_layout_is_none_of_these(convert, entry):
    assert convert(entry) is None


@pytest.mark.parametrize(("entry", "reason"), [
    ({**GSM8K, "answer": "So.\n#### many"}, "convert"),
    ({**AQUA, "correct": ""}, "'', none of A to E"),
    ({**AQUA, "correct": "F"}, "'F', none of A to E"),
    ({**SVAMP, "Answer": None}, "convert"),
    ({**ADDSUB, "lSolutions": []}, "not a list of one number"),
    ({**ADDSUB, "lSolutions": ["x"]}, "convert"),
])  # fmt: skip
def test_an_entry_without_an_answer_is_refused(entry, reason):
    with pytest.raises(ValueError, match=reason):
        any_set(entry)
