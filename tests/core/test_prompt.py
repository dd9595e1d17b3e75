"""Prompts: rows as text, plain and in a chat template."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad import Prompt
from llmad.errors import DataError, ModelError

PROMPT = Prompt(question="Q {instruction}", question_with_input="I {input} Q {instruction}", lead=" ")
CHATML = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>"}
CHAT = Prompt("{instruction}", "{instruction}\n\n{input}", template=CHATML, tokens=TOKENS)


def test_a_row_becomes_a_question_and_an_answer():
    row = {"instruction": "1?", "output": "\n one \n"}
    assert PROMPT.ask(row) == "Q 1?"
    assert PROMPT.answer(row) == " one"


def test_the_input_is_asked_with_where_there_is_one():
    assert PROMPT.ask({"instruction": "1?", "input": "x"}) == "I x Q 1?"
    assert PROMPT.ask({"instruction": "1?", "input": ""}) == "Q 1?"
    assert Prompt(question="Q {instruction}").ask({"instruction": "1?", "input": "x"}) == "Q 1?"


@given(st.text())
def test_an_instruction_stands_in_the_question_as_it_is(instruction):
    assert PROMPT.ask({"instruction": instruction, "input": "x"}) == f"I x Q {instruction}"


def test_braces_in_an_input_are_no_places():
    row = {"instruction": "1?", "input": "{instruction}"}
    assert PROMPT.ask(row) == "I {instruction} Q 1?"


def test_the_fingerprint_tells_prompts_apart():
    assert PROMPT.fingerprint() == Prompt(PROMPT.question, PROMPT.question_with_input, " ").fingerprint()
    assert PROMPT.fingerprint() != Prompt(PROMPT.question, PROMPT.question_with_input, "").fingerprint()


@given(st.text())
def test_a_verbatim_answer_stands_as_it_is(output):
    assert replace(PROMPT, verbatim=True, lead="").answer({"instruction": "1?", "output": output}) == output


def test_a_part_that_is_empty_says_nothing_in_the_fingerprint():
    assert Prompt("Q").fingerprint() == Prompt("Q", "", "", False, "", {}).fingerprint()
    assert CHAT.fingerprint() != replace(CHAT, tokens={"bos_token": "<s>"}).fingerprint()


def test_a_row_is_what_the_user_says():
    row = {"instruction": "1?", "input": "x", "output": "one"}
    assert CHAT.ask(row) == "<bos><|user|>1?\n\nx<eos>\n<|assistant|>"
    assert CHAT.answer(row) == "one"  # the end of sequence is added to every row, here too


def test_a_conversation_is_asked_with_what_was_said_before():
    before = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "one"},
    ]
    row = {"instruction": "2?", "input": "", "output": "two", "context": json.dumps(before)}
    asked = "<bos><|system|>Be brief.<eos>\n<|user|>1?<eos>\n<|assistant|>one<eos>\n<|user|>2?<eos>\n<|assistant|>"
    assert CHAT.ask(row) == asked
    with pytest.raises(DataError, match="earlier turns"):
        PROMPT.ask(row)


def test_an_end_of_turn_that_is_not_the_end_of_sequence_is_learnt():
    prompt = replace(CHAT, template=CHATML.replace("{{ eos_token }}", "<|end|>"))
    assert prompt.answer({"instruction": "1?", "output": "one"}) == "one<|end|>"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no system') }}", "no system"),
        ("{% if", "the chat template"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "the chat template"),
        ("{{ messages | length }}", "is not what its conversation begins with"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template, said):
    with pytest.raises(ModelError, match=said):
        replace(CHAT, template=template).answer({"instruction": "1?", "output": "one"})
