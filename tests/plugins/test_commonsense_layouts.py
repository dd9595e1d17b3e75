"""The commonsense sets' own layouts, made into the paper's rows."""

import json
import re
from pathlib import Path

import pytest

from llmad_plugins.tasks.commonsense_layouts import (
    any_set,
    boolq,
    hellaswag,
    piqa,
    science,
    social_i_qa,
    winogrande,
)

SETS = Path(__file__).parents[2].parent / "shared" / "data" / "commonsense"
FILES = sorted(SETS.glob("*/*.json"))

BOOLQ = {"question": "is house tax and property tax are same", "passage": "Property tax is", "answer": True}
PIQA = {
    "goal": "dresser",
    "sol1": "replace drawer with bobby pin ",
    "sol2": "finish, woodgrain with  bobby pin ",
    "label": 1,
}
SIQA = {
    "context": "Tracy didn't go home that evening and resisted Riley's attacks.",
    "question": "What does Tracy need to do before this?",
    "answerA": "make a new plan",
    "answerB": "Go home and see Riley",
    "answerC": "Find somewhere to go",
    "label": "3",
}
HELLASWAG = {
    "activity_label": "Removing ice from car",
    "ctx": "Then, the man writes over the snow. then",
    "endings": [", he adds wax.", ", he skis.", ", he sleds.", ", he stops."],
    "label": "3",
}
WINOGRANDE = {
    "sentence": "Sarah was a much better surgeon than Maria so _ always got the easier cases.",
    "option1": "Sarah",
    "option2": "Maria",
    "answer": "2",
}
PREDATORS = ["lions", "humans", "bunnies", "grass"]
OPENBOOKQA = {
    "question_stem": "Predators eat",
    "choices": {"text": PREDATORS, "label": ["A", "B", "C", "D"]},
    "answerKey": "C",
}
QUESTION = "Please choose the correct answer to the question:"
BLANK = "Please choose the correct answer to fill in the blank to complete the given sentence:"
ROWS = {
    "boolq": (
        BOOLQ,
        "Please answer the following question with true or false, question: is house tax and property tax are same?"
        "\n\nAnswer format: true/false",
        "true",
    ),
    "piqa": (
        PIQA,
        "Please choose the correct solution to the question: dresser\n\nSolution1: replace drawer with bobby pin "
        "\n\nSolution2: finish, woodgrain with  bobby pin \n\nAnswer format: solution1/solution2",
        "solution2",
    ),
    "social_i_qa": (
        SIQA,
        f"{QUESTION} Tracy didn't go home that evening and resisted Riley's attacks. What does Tracy need to do before "
        "this?\n\nAnswer1: make a new plan Answer2: Go home and see Riley Answer3: Find somewhere to go\n\n"
        "Answer format: answer1/answer2/answer3",
        "answer3",
    ),
    "hellaswag": (
        HELLASWAG,
        "Please choose the correct ending to complete the given sentence: Removing ice from car: Then, the man writes "
        "over the snow. then\n\nEnding1: , he adds wax. Ending2: , he skis. Ending3: , he sleds. Ending4: , he stops."
        "\n\nAnswer format: ending1/ending2/ending3/ending4",
        "ending4",
    ),
    "winogrande": (
        WINOGRANDE,
        f"{BLANK} Sarah was a much better surgeon than Maria so _ always got the easier cases.\n\nOption1: Sarah "
        "Option2: Maria Answer format: option1/option2",
        "option2",
    ),
    "openbookqa": (
        OPENBOOKQA,
        f"{QUESTION} Predators eat\n\nAnswer1: lions Answer2: humans Answer3: bunnies Answer4: grass\n\n"
        "Answer format: answer1/answer2/answer3/answer4",
        "answer3",
    ),
}


@pytest.mark.parametrize(("entry", "instruction", "label"), ROWS.values(), ids=ROWS)
def test_an_entry_becomes_the_papers_row(entry, instruction, label):
    output = f"the correct answer is {label}"
    assert any_set(entry) == {"instruction": instruction, "input": "", "output": output, "answer": label}


@pytest.mark.parametrize("name", [name for name in ROWS if name != "hellaswag"])
def test_the_row_is_in_the_papers_files(name):
    files = [path for path in FILES if path.parent.name == name]
    if not files:
        pytest.skip(f"the set is not at {SETS}")
    assert any(any_set(ROWS[name][0]) in json.loads(path.read_text(encoding="utf-8")) for path in files)


def own_layout(row):
    """The entry that a row of the paper was made of, as ARC and OpenBookQA have it."""
    stem, listed = re.fullmatch(
        r"Please choose the correct answer to the question: (.*)\n\n(Answer1: .*)\n\nAnswer format: [\w/]+",
        row["instruction"],
        re.DOTALL,
    ).groups()
    texts = re.split(r"(?:^| )Answer\d: ", listed)[1:]
    return {
        "question": stem,
        "choices": {"text": texts, "label": list("12345")[: len(texts)]},
        "answerKey": row["answer"][-1],
    }


@pytest.mark.skipif(not FILES, reason=f"the commonsense sets are not at {SETS}")
def test_every_row_of_the_exams_is_made_again_byte_for_byte():
    files = [path for path in FILES if path.parent.name in ("ARC-Challenge", "ARC-Easy", "openbookqa")]
    rows = [row for path in files for row in json.loads(path.read_text(encoding="utf-8"))]
    assert len(rows) > 7000
    assert [row for row in rows if science(own_layout(row)) != row] == []


def test_exams_in_their_original_files_read_the_same():
    original = [{"text": text, "label": label} for text, label in zip(PREDATORS, "ABCD", strict=True)]
    entry = {"id": "1", "question": {"stem": "Predators eat", "choices": original}, "answerKey": "C"}
    assert science(entry) == science(OPENBOOKQA)


@pytest.mark.parametrize(("keys", "key", "label"), [
    ("1234", "2", "answer2"), ("ABC", "C", "answer3"), ("ABCDE", "E", "answer5"), ("12345", "5", "answer5"),
])  # fmt: skip
def test_exams_have_three_to_five_choices_with_letters_or_digits(keys, key, label):
    choices = {"text": [f"text {key}" for key in keys], "label": list(keys)}
    row = science({"question": "What?", "choices": choices, "answerKey": key})
    assert row["answer"] == label
    assert row["instruction"].endswith("/".join(f"answer{number}" for number in range(1, len(keys) + 1)))


@pytest.mark.parametrize("label", [0, "0"])
def test_a_label_may_be_a_number_or_text(label):
    assert piqa({**PIQA, "label": label})["answer"] == "solution1"


@pytest.mark.parametrize(("convert", "entry"), [
    (boolq, {**BOOLQ, "answer": None}), (boolq, {"question": "is it", "passage": "It is."}),
    (piqa, {**PIQA, "label": -1}), (piqa, {**PIQA, "label": ""}), (social_i_qa, {**SIQA, "label": ""}),
    (hellaswag, {**HELLASWAG, "label": ""}), (winogrande, {**WINOGRANDE, "answer": ""}),
    (science, {**OPENBOOKQA, "answerKey": ""}), (science, {**OPENBOOKQA, "answerKey": "E"}),
])  # fmt: skip
def test_a_hidden_answer_is_refused(convert, entry):
    with pytest.raises(ValueError, match=r"its right answer is .*: it is hidden, or no answer"):
        convert(entry)


@pytest.mark.parametrize(("entry", "reason"), [
    ({**HELLASWAG, "endings": ["one", "two"]}, "number 4 of 2"),
    ({**OPENBOOKQA, "choices": {"text": ["one"], "label": ["A"]}}, "1 choices, not 2 to 5"),
    ({**OPENBOOKQA, "choices": ["one", "two"]}, "no text and label"),
    ({**OPENBOOKQA, "choices": {"text": ["one"]}}, "no text and label"),
])  # fmt: skip
def test_choices_that_are_not_whole_are_refused(entry, reason):
    with pytest.raises(ValueError, match=reason):
        any_set(entry)


@pytest.mark.parametrize("entry", [
    {}, {"instruction": "1?", "output": "1", "answer": "1"}, {"question": "1?", "answer": "#### 1"},
    {"question": {"stem": 1}, "choices": []}, {"goal": "dresser"},
])  # fmt: skip
def test_another_layout_is_none_of_these(entry):
    assert any_set(entry) is None
