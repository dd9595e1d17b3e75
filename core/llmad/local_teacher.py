"""Local teacher: a model on this machine, asked in batches that depend on the rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch

from llmad import placement, pretrained
from llmad.data import pad_token, token_ids
from llmad.errors import ModelError
from llmad.fingerprint import fingerprint
from llmad.generation import ends, room, sampling
from llmad.memory import enough_memory
from llmad.pretrained import Pretrained
from llmad.quantization import quantization
from llmad.rationale import NEXT
from llmad.recipe import DeviceMap
from llmad.teacher import Dialogue, Reply, messages
from llmad.train import accelerator


@dataclass(frozen=True)
class LocalTeacher:
    """A loaded model.

    A tokenizer with a chat template is asked by it. Any other model continues a text, and its reply ends where it
    begins a question of its own.

    Attributes:
        base: model and tokenizer.
        ends: the tokens that end a reply.
        batch_size: rows in a batch; rounding makes the texts depend on it.
        temperature: of sampling; 0 takes the likeliest token.
        seed: of sampling.
    """

    base: Pretrained
    ends: tuple[int, ...]
    batch_size: int
    temperature: float
    seed: int
    at_once: int = 1

    def identity(self) -> dict[str, Any]:
        """The weights, where they compute, and the options."""
        weights = sha256(repr(sorted(fingerprint(self.base.model).items())).encode()).hexdigest()[:16]
        model = self.base.model
        where = {"dtype": str(model.dtype), "device": placement.device(model).type, "quantized": quantization(model)}
        options = {"temperature": self.temperature, "seed": self.seed, "batch_size": self.batch_size}
        about = {"teacher": self.base.name, "weights": weights}
        return about | where | options

    def groups(self, dialogues: Sequence[Dialogue]) -> list[list[int]]:
        """Longest first, so that a batch which is too large for memory fails at once."""
        lengths = [len(self._ids(dialogue)) for dialogue in dialogues]
        order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    @enough_memory("lower --batch-size")
    def reply(self, dialogues: Sequence[Dialogue], max_new_tokens: int) -> list[Reply]:
        """One batch. A question that leaves no room for a reply is cut off before it.

        Raises:
            ModelError: the chat template cannot be rendered.
            OutOfMemoryError: the batch is too large.
        """
        codes = [self._ids(dialogue) for dialogue in dialogues]
        model = self.base.model
        fitting = {number: code for number, code in enumerate(codes) if room(model, len(code), max_new_tokens)}
        replies = [Reply("", False) for _ in codes]
        if fitting:
            limit = room(model, max(map(len, fitting.values())), max_new_tokens)
            written = self._generate(list(fitting.values()), limit, str(dialogues))
            for number, ids in zip(fitting, written, strict=True):
                replies[number] = self._reply(ids)
        return replies

    def _ids(self, dialogue: Dialogue) -> list[int]:
        tokenizer = self.base.tokenizer
        if not tokenizer.chat_template:
            return token_ids(tokenizer, [_text(dialogue)])[0]
        try:
            text = tokenizer.apply_chat_template(messages(dialogue), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises what it likes
            reason = f"{self.base.name}: the chat template: {' '.join(str(error).split())[:300]}"
            raise ModelError("bad-template", reason) from None
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.inference_mode()
    def _generate(self, codes: Sequence[Sequence[int]], limit: int, said: str) -> list[list[int]]:
        """Continuations as token ids; questions are padded on the left."""
        pad, width = pad_token(self.base.tokenizer), max(map(len, codes))
        where = placement.device(self.base.model)
        ids = torch.tensor([[pad] * (width - len(code)) + list(code) for code in codes], device=where)
        mask = torch.tensor([[0] * (width - len(code)) + [1] * len(code) for code in codes], device=where)
        torch.manual_seed(int(sha256(f"{self.seed} {said}".encode()).hexdigest()[:15], 16))
        written = self.base.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=limit,
            eos_token_id=list(self.ends) or None,
            pad_token_id=pad,
            **sampling(self.temperature),
        )[:, width:]
        return [list(row) for row in written.tolist()]

    def _reply(self, ids: list[int]) -> Reply:
        end = next((place for place, token in enumerate(ids) if token in self.ends), None)
        text = self.base.tokenizer.decode(ids[:end], skip_special_tokens=True)
        if self.base.tokenizer.chat_template:
            return Reply(text, end is not None)
        text, went_on, _ = text.partition(NEXT)
        return Reply(text, end is not None or bool(went_on))


def local_teacher(
    name: str,
    batch_size: int,
    temperature: float,
    seed: int,
    quantize: str | None = None,
    device_map: DeviceMap = None,
) -> LocalTeacher:
    """Load a built-in name with weights, a Hugging Face folder or a hub id.

    Raises:
        UsageError: no such model.
        ModelError: it is broken.
    """
    base = pretrained.load(name, device=accelerator().device, device_map=device_map, quantize=quantize)
    return LocalTeacher(base, ends(base), batch_size, temperature, seed)


def _text(dialogue: Dialogue) -> str:
    """A dialogue as one text: replies follow after a space, questions on a new line."""
    question, *rest = dialogue
    for turn, said in enumerate(rest):
        question += f"\n{said}" if turn % 2 else f" {said.strip()}"
    return question
