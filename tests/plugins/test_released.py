"""The released scripts: their prompts to the blank, and their reading, written here a second time from their rules."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmad.registry import registry
from llmad_plugins.tasks.alpaca import ALPACA
from llmad_plugins.tasks.released import COMMONSENSE, MATH

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "math"
ROW = {"instruction": "1 + 1?", "input": "", "output": "\nA: 2."}
LABELS = {
    "boolq": ["true", "false"],
    "piqa": ["solution1", "solution2"],
    "social_i_qa": [f"answer{number}" for number in range(1, 6)],
    "hellaswag": [f"ending{number}" for number in range(1, 5)],
    "winogrande": ["option1", "option2"],
}
WORDS = [
    *(
        "The answer is ",
        "untrue ",
        "True ",
        "true",
        "false",
        "solution2 ",
        "answer1",
        "Answer2 ",
        "answer5 or ",
        "ending3",
    ),
    *(
        "option 1 ",
        "option2",
        "A train ",
        "(B) ",
        "apple ",
        "DNA ",
        "3.5",
        "1,234.5 ",
        "-7",
        "4.",
        ".5 ",
        "1,2,3 ",
        "2-5 ",
    ),
    *("\n", ", ", "٣ ", "5%", "$6.", "9" * 310, "1.2.3 ", "--1 ", "x"),
]
texts = st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=8).map("".join))


def last_number(text):
    """Walk the text without its commas: a sign, digits, a point, digits."""
    text, place, found = text.replace(",", ""), 0, float("inf")
    while place < len(text):
        start = place
        place += text[place] == "-" and place + 1 < len(text) and text[place + 1].isdecimal()
        if not text[place].isdecimal():
            place = start + 1
            continue
        while place < len(text) and text[place].isdecimal():
            place += 1
        if place < len(text) and text[place] == ".":
            place += 1
            while place < len(text) and text[place].isdecimal():
                place += 1
        found = float(text[start:place])
    return found


def right_number(text, label):
    return abs(float(label) - last_number(text)) <= 0.001


def right_letter(text, label):
    return next((character for character in text if character in "ABCDE"), "") == label


def right_label(text, label, labels):
    places = {text.find(one): one for one in labels if one in text}
    return (places[min(places)] if places else "") == label


def judged(task, text, gold):
    judge = registry().task(task).judge(gold)
    found = judge.read(text, "paper")
    return found is not None and judge.agree(found, gold)


@settings(max_examples=1000)
@given(texts, st.sampled_from(["4", "3.5", "-7", "1234.5", "5.0", "0.6666666666666666", "10"]))
def test_numbers_are_right_where_the_scripts_say_so(text, gold):
    assert judged("gsm8k", text, gold) == right_number(text, gold)


@settings(max_examples=500)
@given(texts, st.sampled_from("ABCDE"))
def test_letters_are_right_where_the_scripts_say_so(text, gold):
    assert judged("aqua", text, gold) == right_letter(text, gold)


@settings(max_examples=1000)
@given(texts, st.sampled_from(sorted(LABELS)), st.integers(0, 4))
def test_labels_are_right_where_the_scripts_say_so(text, task, place):
    gold = LABELS[task][place % len(LABELS[task])]
    assert judged(task, text, gold) == right_label(text, gold, LABELS[task])


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the math sets are not at {DATA}")
@pytest.mark.parametrize("name", ["AddSub", "AQuA", "gsm8k", "MultiArith", "SingleEq", "SVAMP"])
def test_real_answers_are_right_where_the_scripts_say_so(name):
    right = right_letter if name == "AQuA" else right_number
    for row in json.loads((DATA / name / "test.json").read_text(encoding="utf-8")):
        assert judged(name.lower(), row["output"], row["answer"]) == right(row["output"], row["answer"])


def test_the_training_prompt_is_indented_and_the_answer_as_it_stands():
    text = MATH.trained.ask(ROW) + MATH.trained.answer(ROW)
    assert re.sub(" {16}", ">", text) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.  "
        "\n\n>### Instruction:\n>1 + 1?\n>\n>### Response:\n>\nA: 2."
    )
    shown = MATH.trained.ask({**ROW, "input": "x"})
    assert "further context. Write a response that appropriately completes the request. \n\n" in shown
    assert re.sub(" {16}", ">", shown).endswith("\n>\n>### Input:\n>x\n>\n>### Response:\n>")


def test_the_scoring_prompt_has_other_blanks_and_no_input():
    text = MATH.asked.ask({**ROW, "input": "not shown"})
    assert re.sub(" {16}", ">", text) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request. \n\n"
        ">### Instruction:\n>1 + 1?\n\n>### Response:\n>"
    )
    assert COMMONSENSE.asked == MATH.asked


def test_a_search_of_four_beams_and_its_lengths():
    assert (MATH.num_beams, MATH.max_new_tokens) == (4, 256)
    assert (COMMONSENSE.num_beams, COMMONSENSE.max_new_tokens) == (4, 32)


@pytest.mark.parametrize("released", [MATH, COMMONSENSE])
def test_quirks_are_sentences(released):
    assert len(set(released.quirks)) == len(released.quirks) >= 7
    assert all(quirk[0].isupper() and quirk.endswith(".") for quirk in released.quirks)


def test_the_prompt_of_the_tasks_is_alpacas():
    asked = ALPACA.ask({"instruction": "1 + 1?", "input": ""})
    assert asked.endswith("### Instruction:\n1 + 1?\n\n### Response:\n")
    assert "### Input:\nx\n\n### Response:" in ALPACA.ask({"instruction": "1?", "input": "x"})
