"""Data: rows to token ids with the prompt masked, and ids to batches in an order that the seed fixes."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from llmad.errors import DataError, ModelError
from llmad.prompt import Prompt, Row

IGNORED = -100  # the label that torch's cross entropy passes over
_POOL = 32  # batches whose rows are sorted by length together: less padding, still a random order
_WIDE = 512  # rows; where batches are larger fewer share a pool, so that a step does not have one length alone


@dataclass(frozen=True)
class Example:
    """One row as token ids; `labelled` says which of them are learnt."""

    ids: tuple[int, ...]
    labelled: tuple[bool, ...]

    @cached_property
    def learnt(self) -> int:
        """How many tokens are learnt; nothing stands before the first that could predict it."""
        return sum(self.labelled[1:])


@dataclass(frozen=True)
class Encoded:
    """The rows that fit, and how many did not."""

    examples: list[Example]
    left_out: int

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(len(example.ids) for example in self.examples)

    @property
    def trained_tokens(self) -> int:
        """Tokens that are learnt."""
        return sum(sum(example.labelled) for example in self.examples)


@dataclass(frozen=True)
class Batch:
    """What one forward pass is given, and what it is to learn.

    Attributes:
        inputs: keyword arguments of the model's forward; the ids are (rows, length).
        labels: (rows, length): what the token before is to predict, or IGNORED; a row's first token is never learnt.
            They stay in main memory: which tokens are learnt is asked there, and nobody waits for a device.
        lengths: the tokens of each row of the data; the rest of `inputs` is padding.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> "Batch":
        """The same with its inputs on a device."""
        return replace(self, inputs={name: held.to(device, non_blocking=True) for name, held in self.inputs.items()})


def encode(rows: Sequence[Row], prompt: Prompt, tokenizer: Any, max_length: int, whole: bool = False) -> Encoded:
    """Turn rows into ids: question, answer, end of sequence; the answer and the end are learnt.

    Args:
        rows: with `instruction` and `output`.
        prompt: how a row becomes text.
        tokenizer: a fast tokenizer of transformers.
        max_length: rows of more tokens are left out.
        whole: learn the question too.

    Raises:
        DataError: no row fits.
        ModelError: the tokenizer gives no offsets, or has no end-of-sequence token.
    """
    if not getattr(tokenizer, "is_fast", False) or tokenizer.eos_token_id is None:
        raise ModelError("bad-tokenizer", "the tokenizer must be a fast one with an end-of-sequence token")
    questions = [prompt.ask(row) for row in rows]
    texts = [question + prompt.answer(row) for question, row in zip(questions, rows, strict=True)]
    codes = tokenizer(texts, return_offsets_mapping=True, return_special_tokens_mask=True)
    columns = (codes["input_ids"], codes["offset_mapping"], codes["special_tokens_mask"], questions)
    ends = _ends(tokenizer)
    examples = [
        _example(ids, offsets, special, 0 if whole else len(question), ends)
        for ids, offsets, special, question in zip(*columns, strict=True)
    ]
    fitting = [example for example in examples if len(example.ids) <= max_length]
    if not fitting:
        shortest = min(len(example.ids) for example in examples)
        raise DataError("rows-too-long", f"every row is longer than {max_length} tokens; the shortest has {shortest}")
    return Encoded(fitting, len(examples) - len(fitting))


def batches(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch, as row numbers: a pure function of its arguments.

    Rows are shuffled, sorted by length inside pools of some batches, cut into batches, and the batches shuffled.
    """
    source = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    source.shuffle(order)
    wide = size * max(1, min(_POOL, _WIDE // size))
    pools = [order[start : start + wide] for start in range(0, len(order), wide)]
    sorted_pools = [sorted(pool, key=lambda row: lengths[row]) for pool in pools]
    cut = [pool[start : start + size] for pool in sorted_pools for start in range(0, len(pool), size)]
    source.shuffle(cut)
    return cut


def padded(examples: Sequence[Example], pad: int) -> Batch:
    """Rows below one another, padded on the right to the longest of them."""
    lengths = tuple(len(example.ids) for example in examples)
    width = max(lengths)
    inputs = {
        "input_ids": torch.tensor([[*one.ids, *[pad] * (width - len(one.ids))] for one in examples]),
        "attention_mask": torch.tensor([[1] * length + [0] * (width - length) for length in lengths]),
    }
    labels = [[*_labels(one), *[IGNORED] * (width - len(one.ids))] for one in examples]
    return Batch(inputs, torch.tensor(labels), lengths)


def packed(examples: Sequence[Example], positions: bool = True) -> Batch:
    """Rows end to end in one, each with positions of its own, if the model is told positions."""
    lengths = tuple(len(example.ids) for example in examples)
    ids = torch.tensor([[token for one in examples for token in one.ids]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if positions:
        inputs["position_ids"] = torch.cat([torch.arange(length) for length in lengths])[None]
    labels = torch.tensor([[label for one in examples for label in _labels(one)]])
    return Batch(inputs, labels, lengths)


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Questions as ids, as `encode` has them: an end that the tokenizer adds is left out."""
    ends = _ends(tokenizer)
    return [ids[slice(*_inside(ids, ends))] for ids in tokenizer(list(texts))["input_ids"]]


def pad_token(tokenizer: Any) -> int:
    """The id to pad with; masks say what is padding, so any id will do."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def _labels(example: Example) -> Iterator[int]:
    """One for each token; nothing stands before the first that could predict it."""
    yield IGNORED
    for token, learnt in zip(example.ids[1:], example.labelled[1:], strict=True):
        yield token if learnt else IGNORED


_Ends = tuple[int | None, int | None]


def _ends(tokenizer: Any) -> _Ends:
    """The tokens that a text begins and ends with; looked up once, which a tokenizer takes its time for."""
    return tokenizer.bos_token_id, tokenizer.eos_token_id


def _inside(ids: Sequence[int], ends: _Ends) -> tuple[int, int]:
    """From where to where ids are the text's: without a second beginning, which a chat template brings, and an end."""
    begin, end = ends
    doubled = begin is not None and list(ids[:2]) == [begin] * 2
    ended = len(ids) > 0 and ids[-1] == end
    return int(doubled), len(ids) - ended


def _example(ids: list[int], offsets: list[tuple[int, int]], special: list[int], start: int, ends: _Ends) -> Example:
    """Learnt is what reaches past the question, and is not added by the tokenizer; the end is always learnt.

    The width of an offset says nothing: tokenizers that trim offsets give a token of spaces none.
    """
    learnt = [right > start and not added for (_, right), added in zip(offsets, special, strict=True)]
    part = slice(*_inside(ids, ends))
    return Example((*ids[part], cast(int, ends[1])), (*learnt[part], True))
