"""Endpoint: a teacher behind the chat interface of OpenAI, which most servers of language models speak.

It is spoken to because its address was given, and for no other reason. The key comes from the environment variable
OPENAI_API_KEY, goes into the header of a request, and is neither shown nor written.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from llmad.errors import ModelError, UsageError
from llmad.posting import hidden, loopback, post
from llmad.teacher import Dialogue, Reply, messages

KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Endpoint:
    """One model of one server.

    Attributes:
        url: the base address, without `/chat/completions`.
        model: the server's name for the model.
        at_once: requests in flight.
        temperature: of sampling.
        seed: of sampling, for servers that heed it.
        timeout: seconds for one attempt.
        key: the secret; empty where there is none.
    """

    url: str
    model: str
    at_once: int = 8
    temperature: float = 0.0
    seed: int = 0
    timeout: float = 300.0
    key: str = field(default="", repr=False)

    def identity(self) -> dict[str, Any]:
        """The address, the model and the options of sampling."""
        return {"teacher": self.url, "model": self.model, "temperature": self.temperature, "seed": self.seed}

    def groups(self, dialogues: Sequence[Dialogue]) -> list[list[int]]:
        """Each by itself."""
        return [[number] for number in range(len(dialogues))]

    def reply(self, dialogues: Sequence[Dialogue], max_new_tokens: int) -> list[Reply]:
        """One request for each dialogue.

        Raises:
            ModelError: the endpoint refuses, fails or answers something else.
        """
        return [self._complete(dialogue, max_new_tokens) for dialogue in dialogues]

    def _complete(self, dialogue: Dialogue, max_new_tokens: int) -> Reply:
        content = {
            "model": self.model,
            "messages": messages(dialogue),
            "temperature": self.temperature,
            "max_tokens": max_new_tokens,
            "seed": self.seed,
        }
        place = f"{self.url}/chat/completions"
        answer = post(place, content, self.key, self.timeout)
        try:
            choice = answer["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except (LookupError, TypeError, AttributeError):
            text, reason = 0, None
        if not isinstance(text, str | None):
            said = f"{place} answers without choices[0].message.content"
            raise ModelError("bad-answer", said, "is it an OpenAI-compatible endpoint?")
        whole = (text or "").encode("utf-8", "replace").decode()  # half characters could not be written
        return Reply(hidden(whole, self.key), reason != "length")


def endpoint(address: str, model: str | None, at_once: int, temperature: float, seed: int, timeout: float) -> Endpoint:
    """The endpoint at an address.

    Raises:
        UsageError: no address of an endpoint, one to which the key would travel in clear, or no model is named.
    """
    url = _checked(address)
    if not model:
        raise UsageError("no-model", f"which model of {url} is the teacher?", "give --model NAME")
    return Endpoint(url, model, at_once, temperature, seed, timeout, _key())


def _checked(address: str) -> str:
    parts = _parts(address)
    if parts.username or parts.password or parts.query or parts.fragment:
        reason = "the address of an endpoint has no user, password, query or fragment"
        raise UsageError("bad-endpoint", reason, f"the key is read from {KEY}")  # which may be shown: the address not
    if parts.scheme == "http" and not loopback(parts.hostname or ""):
        reason = f"{address}: the key and the rows would travel in clear"
        raise UsageError("plain-http", reason, f"write https://{parts.netloc}{parts.path}")
    return address.rstrip("/").removesuffix("/chat/completions")


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        fine = False
    if not fine or not re.fullmatch(r"[!-~]+", address):
        reason = "the teacher's address is none of http or https"
        raise UsageError("bad-endpoint", reason, "write https://host/v1")
    return parts


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise UsageError("bad-key", f"{KEY} holds characters that no header can carry", "set it anew")
    return key
