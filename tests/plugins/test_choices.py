"""Any kind of choice, read from the ways that texts declare one."""

import pytest

from llmad_plugins.tasks.choices import growths, reader

read = reader(
    value=r"\b(?:red|blue)\b", aside=r"(?P<value>\b(?:red|blue)\b)", alone=(r"(?:colour\s+)?", r"[^\w\n]*(?:\n|$)")
)


@pytest.mark.parametrize(("text", "choice"), [
    ("The answer is red.", "red"), ("The answer is the second colour, blue.", "blue"), ("red is correct", "red"),
    ("Hence, red.", "red"), ("which is option blue.", "blue"), ("I choose red.", "red"), ("colour blue", "blue"),
    ("The answer is red. So blue is the answer.", "blue"),
    ("red", "red"), ("It is red or blue", None), ("If red is correct, then", None), ("The answer is not red", None),
    ("The answer is either red or blue", None), ("red is incorrect", None), ("", None),
])  # fmt: skip
def test_the_choice_that_is_declared_last_is_read(text, choice):
    assert read(text) == choice


def test_growths_are_other_choices_and_their_endings():
    assert {" or red", "d", " or blue", "x"} <= set(growths("red", "blue"))
