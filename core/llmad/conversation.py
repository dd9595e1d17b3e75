"""Conversations: a list of messages to rows, one a reply; what was said before is the row's `context`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmad.task import Split

_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
_CALLS = ("tool_calls", "function_call")

Message = dict[str, str]  # role and content


def rows(messages: Any, split: Split) -> list[dict[str, str]]:
    """The rows of a conversation, whose messages have `role` and `content`, or ShareGPT's `from` and `value`.

    A row's `instruction` is the user's message, its `output` the reply, its `context` all messages before as JSON
    text, empty where there are none. Training has a row for every reply; a test has one, for the last question.

    Raises:
        ValueError: what is wrong with the conversation, and with which message.
    """
    turns = _turns(messages)
    replies = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    if split == "train":
        if not replies:
            raise ValueError("no message is the assistant's")
        return [_row(turns, place) for place in replies]
    last = len(turns) - (turns[-1]["role"] == "assistant")
    if turns[last - 1]["role"] != "user":
        raise ValueError("no message is the user's")
    return [_row(turns, last)]


def _row(turns: Sequence[Message], reply: int) -> dict[str, str]:
    """The row of the reply at a place; without an output where the conversation ends before."""
    before = list(turns[: reply - 1])
    context = json.dumps(before, ensure_ascii=False) if before else ""
    row = {"instruction": turns[reply - 1]["content"], "context": context}
    return row | {"output": turns[reply]["content"]} if reply < len(turns) else row


def _turns(messages: Any) -> list[Message]:
    if not isinstance(messages, list):
        raise ValueError(f"{type(messages).__name__}, not a list of messages")
    if not messages:
        raise ValueError("no messages")
    turns = [_turn(number, message) for number, message in enumerate(messages, 1)]
    for number, turn in enumerate(turns, 1):
        before = turns[number - 2]["role"] if number > 1 else None
        if turn["role"] == "system" and before:
            raise ValueError(f"message {number} is the system's, which can only be the first")
        if turn["role"] == "assistant" and before in (None, "system"):
            raise ValueError(f"message {number} is the assistant's, with no user's before it")
        if turn["role"] == before:
            raise ValueError(f"messages {number - 1} and {number} are both the {before}'s")
    return turns


def _turn(number: int, message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(f"message {number} is {type(message).__name__}, not an object")
    calls = next((key for key in _CALLS if message.get(key)), None)
    if calls:
        raise ValueError(f"message {number} has {calls}; calls of tools are not read")
    keys = ("from", "value") if "from" in message and "role" not in message else ("role", "content")
    role, content = (message.get(key) for key in keys)
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"message {number}: {keys[0]} is {role!r}, not one of {', '.join(_ROLES)}")
    if content is None:
        raise ValueError(f"message {number} has no {keys[1]}")
    if not isinstance(content, str):
        raise ValueError(f"message {number}: {keys[1]} is {type(content).__name__}, not text")
    return {"role": _ROLES[role], "content": content}
