"""Conversations: a row for every reply, nothing lost; each fault is named with its message."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad.conversation import rows


def said(role, content):
    return {"role": role, "content": content}


SYSTEM, ASKED, TOLD = said("system", "Be brief."), said("user", "1 + 1?"), said("assistant", "2")
AGAIN, MORE = said("user", "And 3?"), said("assistant", "5")


def test_every_reply_is_a_row_and_what_was_before_is_its_context():
    assert rows([SYSTEM, ASKED, TOLD, AGAIN, MORE], "train") == [
        {"instruction": "1 + 1?", "context": json.dumps([SYSTEM]), "output": "2"},
        {"instruction": "And 3?", "context": json.dumps([SYSTEM, ASKED, TOLD]), "output": "5"},
    ]
    assert rows([ASKED, TOLD], "train") == [{"instruction": "1 + 1?", "context": "", "output": "2"}]


def test_a_last_question_without_a_reply_teaches_nothing():
    assert rows([ASKED, TOLD, AGAIN], "train") == rows([ASKED, TOLD], "train")


def test_a_test_asks_the_last_question():
    before = json.dumps([ASKED, TOLD])
    assert rows([ASKED, TOLD, AGAIN], "test") == [{"instruction": "And 3?", "context": before}]
    assert rows([ASKED, TOLD, AGAIN, MORE], "test") == [{"instruction": "And 3?", "context": before, "output": "5"}]


def test_the_names_of_sharegpt_are_read():
    shared = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "1 + 1?"},
        {"from": "gpt", "value": "2"},
    ]
    assert rows(shared, "train") == rows([SYSTEM, ASKED, TOLD], "train")


def test_what_else_a_message_has_is_passed_over():
    extra = {"name": "Ann", "tool_calls": None, "function_call": None, "id": 7}
    assert rows([ASKED | extra, TOLD | extra | {"tool_calls": []}], "train") == rows([ASKED, TOLD], "train")


FAULTS = {
    "no list": ("1 + 1?", "str, not a list of messages"),
    "null": (None, "NoneType, not a list of messages"),
    "an empty one": ([], "no messages"),
    "a message that is none": ([ASKED, "2"], "message 2 is str, not an object"),
    "an unknown role": ([ASKED, TOLD, said("tool", "x")], "message 3: role is 'tool', not one of system, user"),
    "a role that is a list": ([said([], "x"), TOLD], "message 1: role is []"),
    "a role of neither form": ([{"speaker": "user", "text": "x"}, TOLD], "message 1: role is None"),
    "an unknown speaker": ([{"from": "bard", "value": "x"}], "message 1: from is 'bard'"),
    "no content": ([ASKED, {"role": "assistant"}], "message 2 has no content"),
    "null content": ([ASKED, said("assistant", None)], "message 2 has no content"),
    "content in parts": ([said("user", [{"type": "text", "text": "x"}]), TOLD], "message 1: content is list, not text"),
    "a call": ([ASKED, TOLD | {"tool_calls": [{"id": 1}]}], "message 2 has tool_calls"),
    "an old call": ([ASKED, {"role": "assistant", "function_call": {"name": "f"}}], "message 2 has function_call"),
    "two questions": ([ASKED, AGAIN, TOLD], "messages 1 and 2 are both the user's"),
    "two replies": ([ASKED, TOLD, MORE], "messages 2 and 3 are both the assistant's"),
    "two systems": ([SYSTEM, SYSTEM, ASKED, TOLD], "message 2 is the system's, which can only be the first"),
    "a late system": ([ASKED, SYSTEM, TOLD], "message 2 is the system's, which can only be the first"),
    "a reply first": ([TOLD, ASKED, MORE], "message 1 is the assistant's, with no user's before it"),
    "a reply to the system": ([SYSTEM, TOLD], "message 2 is the assistant's, with no user's before it"),
}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("messages", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_its_message(messages, words, split):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the words are compared below, as they stand
        rows(messages, split)
    assert words in str(error.value)


def test_a_conversation_needs_a_reply_to_learn_and_a_question_to_ask():
    with pytest.raises(ValueError, match="no message is the assistant's"):
        rows([SYSTEM, ASKED], "train")
    with pytest.raises(ValueError, match="no message is the user's"):
        rows([SYSTEM], "test")


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5), st.none() | st.text())
def test_a_row_and_its_context_are_the_conversation_up_to_its_reply(pairs, system):
    opening = [] if system is None else [said("system", system)]
    messages = opening + [
        turn for question, reply in pairs for turn in (said("user", question), said("assistant", reply))
    ]
    made = rows(messages, "train")
    assert len(made) == len(pairs)
    for number, row in enumerate(made, 1):
        before = json.loads(row["context"] or "[]")
        last = [said("user", row["instruction"]), said("assistant", row["output"])]
        assert before + last == messages[: len(opening) + 2 * number]
