"""Prompt: the one form of the question, from training to scoring and chat."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from llmad.errors import DataError, ModelError

Row = Mapping[str, str]


@dataclass(frozen=True)
class Prompt:
    """How a row becomes text.

    The question is a text with places, or a conversation in a chat template. The answer follows it.

    Attributes:
        question: a text with `{instruction}`.
        question_with_input: the same where a row's `input` is not empty; also has `{input}`.
        lead: stands between question and answer.
        verbatim: the answer is the row's `output` as it stands, and not stripped.
        template: a chat template (Jinja, as in transformers); the question is then what the user says, after the
            row's `context` if it has one.
        tokens: the special tokens that the template speaks of, such as `bos_token`.
    """

    question: str
    question_with_input: str = ""
    lead: str = ""
    verbatim: bool = False
    template: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict)

    def ask(self, row: Row) -> str:
        """The text that the model is given.

        Raises:
            DataError: the row is a conversation, and the prompt has no place for what was said before.
            ModelError: the chat template cannot be rendered.
        """
        if self.template:
            return self._render(self._messages(row), add_generation_prompt=True)
        if row.get("context"):
            reason = "a row has earlier turns of a conversation, for which the prompt has no place"
            raise DataError("not-a-chat", reason, "choose prompt=chat")
        return self._said(row)

    def answer(self, row: Row) -> str:
        """The text that the model is to write, without the end-of-sequence token.

        Raises:
            ModelError: the chat template cannot be rendered, or changes what was said before once a reply follows.
        """
        if not self.template:
            return self.lead + (row["output"] if self.verbatim else row["output"].strip())
        asked = self.ask(row)
        whole = self._render([*self._messages(row), {"role": "assistant", "content": row["output"]}])
        if not whole.startswith(asked):
            raise ModelError("bad-template", "the chat template's question is not what its conversation begins with")
        return whole[len(asked) :].rstrip().removesuffix(self.tokens.get("eos_token") or "\0")

    def fingerprint(self) -> str:
        """SHA-256 of the parts that are not empty: two prompts with the same fingerprint are the same."""
        parts = {name: part for name, part in asdict(self).items() if part}
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _said(self, row: Row) -> str:
        template = self.question_with_input if row.get("input") and self.question_with_input else self.question
        return re.sub(r"\{(input|instruction)\}", lambda place: row.get(place[1], ""), template)  # in one pass

    def _messages(self, row: Row) -> list[dict[str, str]]:
        before = json.loads(row["context"]) if row.get("context") else []
        return [*before, {"role": "user", "content": self._said(row)}]

    def _render(self, messages: list[dict[str, str]], **more: Any) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template  # runs Jinja in a sandbox

        try:
            (text,), _ = render_jinja_template([messages], chat_template=self.template, **self.tokens, **more)
        except Exception as error:  # a template raises what it likes
            raise ModelError("bad-template", f"the chat template: {' '.join(str(error).split())}") from None
        return str(text)
