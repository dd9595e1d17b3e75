"""Chat: one loaded adapter that answers questions as it was trained to, word by word."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.generation import BaseStreamer

from llmad import adapter_dir, placement, pretrained, prompting
from llmad.data import pad_token, token_ids
from llmad.errors import DataError, LlmadWarning, ModelError
from llmad.generation import ends, room, sampling
from llmad.memory import enough_memory
from llmad.pretrained import Pretrained
from llmad.prompt import Prompt
from llmad.recipe import DeviceMap
from llmad.registry import registry
from llmad.train import accelerator

Turn = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True)
class Chat:
    """A base with its adapter, and the prompt that it was trained with.

    Attributes:
        base: the adapted model and its tokenizer.
        prompt: how a question becomes text.
        ends: the tokens that end an answer.
    """

    base: Pretrained
    prompt: Prompt
    ends: tuple[int, ...]

    @property
    def remembers(self) -> bool:
        """Whether the prompt has a place for earlier turns: a chat template."""
        return bool(self.prompt.template)

    @enough_memory("lower --max-new-tokens, or quantise the base")
    def answer(
        self,
        question: str,
        before: Sequence[Turn] = (),
        say: Callable[[str], object] = lambda _: None,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
    ) -> str:
        """Ask one question.

        Args:
            question: the row's `instruction`.
            before: earlier turns, for a chat that remembers.
            say: called with each piece of the answer as it is written; together they are the answer.
            max_new_tokens: how long the answer may be.
            temperature: of sampling; 0 takes the likeliest token.

        Raises:
            DataError: question and earlier turns leave no room for an answer.
            OutOfMemoryError: they are too long for the memory.
        """
        (ids,) = token_ids(self.base.tokenizer, [self.prompt.ask(_row(question, before))])
        limit = room(self.base.model, len(ids), max_new_tokens)
        if limit == 0:
            reason = f"the question has {len(ids):,} tokens, which leaves no room for an answer"
            raise DataError("too-long", reason, "ask a shorter one")
        written = self._generate(ids, _Listener(self._text, say), limit, temperature)
        return self._text(written)

    @torch.inference_mode()
    def _generate(self, ids: list[int], listener: "_Listener", limit: int, temperature: float) -> list[int]:
        where = placement.device(self.base.model)
        written = self.base.model.generate(
            input_ids=torch.tensor([ids], device=where),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=where),
            streamer=listener,
            max_new_tokens=limit,
            eos_token_id=list(self.ends) or None,
            pad_token_id=pad_token(self.base.tokenizer),
            **sampling(temperature),
        )
        return [int(token) for token in written[0, len(ids) :].tolist()]

    def _text(self, ids: Sequence[int]) -> str:
        end = next((place for place, token in enumerate(ids) if token in self.ends), None)
        return str(self.base.tokenizer.decode(ids[:end], skip_special_tokens=True))


class _Listener(BaseStreamer):  # type: ignore[misc]  # transformers is untyped here
    """Says what is new in the text each time that a token comes."""

    def __init__(self, text: Callable[[Sequence[int]], str], say: Callable[[str], object]) -> None:
        self.text, self.say = text, say
        self.ids: list[int] | None = None
        self.said = 0

    def put(self, value: torch.Tensor) -> None:
        """Take the question first, and then one token at a time."""
        if self.ids is None:
            self.ids = []
            return
        self.ids += value.tolist()
        text = self.text(self.ids)
        if not text.endswith("\ufffd"):  # half a character: the other half is to come
            self._go_on(text)

    def end(self) -> None:
        """Say what was held back."""
        self._go_on(self.text(self.ids or []))

    def _go_on(self, text: str) -> None:
        if len(text) > self.said:
            self.say(text[self.said :])
            self.said = len(text)


def chat(
    folder: Path, backbone: str | None = None, quantize: str | None = None, device_map: DeviceMap = None, seed: int = 0
) -> Chat:
    """Load an adapter on its base.

    Args:
        folder: a run directory or an adapter directory.
        backbone: the base; the recorded one where None.
        quantize: the quantizer of the base's linear maps, or `none`; as recorded where None.
        device_map: where the base's parts go; all on one device where None.
        seed: of sampling.

    Raises:
        LlmadError: of every kind; what is wrong with the directory is told before the base is loaded.
    """
    place = adapter_dir.run_adapter(folder)
    about = adapter_dir.read_about(place)
    prompt = prompting.recorded(about, place / adapter_dir.ABOUT) or _unrecorded(about, folder)
    name = pretrained.one_backbone(backbone, [about])
    how = pretrained.common_quantization(name, [about], quantize)
    dtype = pretrained.common_dtype([about])
    base = pretrained.load(name, dtype, accelerator().device, device_map, quantize=how)
    adapter_dir.load(base.model, place)
    torch.manual_seed(seed)
    return Chat(base, prompt, ends(base))


def _unrecorded(about: dict[str, Any], folder: Path) -> Prompt:
    if "task" not in about:
        reason = f"{folder} says neither which prompt nor which task it was trained with"
        raise ModelError("no-prompt", reason, "train it with llmad, or score it with llmad evaluate --task")
    task = registry().task(about["task"])
    reason = f"{folder} does not say which prompt it was trained with; it is asked with that of task {task.name}"
    warnings.warn(reason, LlmadWarning, stacklevel=3)
    return task.prompt


def _row(question: str, before: Sequence[Turn]) -> dict[str, str]:
    said = [
        {"role": role, "content": text}
        for turn in before
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return {"instruction": question} | ({"context": json.dumps(said)} if said else {})
