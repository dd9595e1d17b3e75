"""Test questions among the training rows."""

from pathlib import Path

import pytest

from llmad import rows
from llmad.leaks import Leak, leak, repeated
from llmad.sets import sets_in

MATH = Path(__file__).parents[2].parent / "shared" / "data" / "math"
present = pytest.mark.skipif(not MATH.is_dir(), reason=f"the math sets are not at {MATH}")


def ask(text, **more):
    return {"instruction": text, "output": "1", **more}


def test_texts_are_compared_without_case_and_white_space():
    assert leak([ask("Tom has  2 pears. ")], "t", [ask("tom has 2 pears."), ask("Tom has 3.")]) == Leak("t", 2, 1, 1)


def test_numbers_are_masked_whole():
    training = [ask("Pay $1,250.50 for 3 pears.")]
    found = leak(training, "t", [ask("Pay $7 for 12 pears."), ask("Pay $7 for twelve pears.")])
    assert found == Leak("t", 2, 0, 1)


def test_the_input_is_part_of_the_question():
    assert leak([ask("Sum", input="1 2")], "t", [ask("Sum", input="x"), ask("Sum", input="1 2")]).exact == 1


def test_repeated_rows_are_counted_once_less():
    assert repeated([ask("a"), ask("A "), ask("b"), ask("a")]) == 2


def test_a_leak_says_itself():
    assert str(Leak("svamp", 1000, 800, 800)) == "800 of 1,000 questions of svamp are among the training rows"
    assert str(Leak("t", 5, 0, 2)).endswith(
        "0 of 5 questions of t are among the training rows, 2 more with other numbers"
    )


@present
def test_the_papers_training_file_holds_four_fifths_of_its_test_sets():
    training = rows.read(MATH / "train.json", "train").rows
    found = {name: leak(training, name, tests) for name, tests in sets_in(MATH, []).items()}
    assert {name: (one.exact, one.n) for name, one in found.items() if name != "mawps"} == {
        "gsm8k": (1055, 1319),
        "svamp": (800, 1000),
        "aqua": (203, 254),
        "addsub": (316, 395),
        "singleeq": (406, 508),
        "multiarith": (491, 600),
    }
