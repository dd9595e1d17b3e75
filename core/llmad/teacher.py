"""Teacher: what answers questions in words. An endpoint that was given by its address, or a model on this machine."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmad.errors import UsageError
from llmad.recipe import DeviceMap

HOTTEST = 2.0  # temperature; the most that endpoints take
LONGEST = 86400.0  # seconds
Dialogue = tuple[str, ...]
"""What was said so far: the asker's words, the teacher's, in turns; the asker's are first and last."""


@dataclass(frozen=True)
class Reply:
    """What a teacher said, and whether it came to its end; where not, it was cut off at the greatest length."""

    text: str
    finished: bool


class Teacher(Protocol):
    """Replies to dialogues.

    Attributes:
        at_once: how many groups may be asked at the same time.
    """

    @property
    def at_once(self) -> int: ...  # noqa: D102  told above

    def identity(self) -> dict[str, Any]:
        """All that its replies depend on, as plain data and without secrets: two alike say the same."""

    def groups(self, dialogues: Sequence[Dialogue]) -> list[list[int]]:
        """The dialogues by number, in the groups in which they are asked: a pure function of the dialogues."""

    def reply(self, dialogues: Sequence[Dialogue], max_new_tokens: int) -> list[Reply]:
        """One reply for each dialogue of a group.

        Raises:
            LlmadError: there is none to be had.
        """


def messages(dialogue: Dialogue) -> list[dict[str, str]]:
    """A dialogue as chat models take it."""
    roles = ("user", "assistant")
    return [{"role": roles[turn % 2], "content": text} for turn, text in enumerate(dialogue)]


def hire(
    name: str,
    model: str | None = None,
    batch_size: int = 8,
    temperature: float = 0.0,
    seed: int = 0,
    timeout: float = 300.0,
    quantize: str | None = None,
    device_map: DeviceMap = None,
) -> Teacher:
    """The teacher of a name. No torch is loaded for an endpoint.

    Args:
        name: the address of an OpenAI-compatible endpoint (`https://host/v1`); or a built-in name, a local Hugging
            Face folder, or a hub id.
        model: which of the endpoint's models; a local teacher is one.
        batch_size: rows in a batch, or requests in flight.
        temperature: of sampling; 0 takes the likeliest token.
        seed: of sampling.
        timeout: seconds that the endpoint may take for a reply.
        quantize: the quantizer of a local model's linear maps.
        device_map: where a local model's parts go; all on one device where None.

    Raises:
        UsageError: it cannot be meant so.
        ModelError: the local model is broken.
    """
    if not 0 <= temperature <= HOTTEST or not 0 < timeout <= LONGEST:  # which no comparison with NaN is
        raise UsageError("bad-value", f"temperature {temperature:g} and timeout {timeout:g} s: one cannot be meant so")
    if "://" in name:
        if quantize is not None or device_map is not None:
            raise UsageError("bad-value", "--quantize and --device-map are for a local teacher", "leave them out")
        from llmad.endpoint import endpoint

        return endpoint(name, model, batch_size, temperature, seed, timeout)
    if re.match(r"[\w.-]+:\d", name):  # else it would pass for a hub id
        hint = "an endpoint's address begins with https://, or with http:// on this machine"
        raise UsageError("bad-endpoint", f"--teacher {name}: is it an endpoint?", hint)
    if model is not None:
        raise UsageError("bad-value", "--model is for an endpoint; a local teacher is one model", "leave --model out")
    from llmad.local_teacher import local_teacher

    return local_teacher(name, batch_size, temperature, seed, quantize, device_map)
