"""Packable: whether a model's rows can be packed, tried out on a few tokens.

What a row computes packed must be what it computes alone, and must not change with the other rows. Convolutions and
recurrent states, for one, go on from row to row. And rows that are as long as the model allows must go together.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from llmad.activation import only, per_row
from llmad.generation import all_positions
from llmad.memory import enough_memory, is_shortage
from llmad.packing import WAYS, Way, apart, takes_positions
from llmad.twin import rehearsal

_TRIED = (5, 7, 4)  # lengths of the rows that are tried
_LEAK = 1e-5  # of the logits' spread: nothing but the order of sums may change with other rows


@enough_memory("quantise the base, or take a smaller one")
def way(model: nn.Module, name: str | None = None) -> Way | None:
    """How the model keeps packed rows apart; None where it does not, and its rows must be padded.

    The model, with what is attached to it, computes a few short rows alone and packed.

    Args:
        model: a model of transformers.
        name: an adapter that is to act on some of the rows alone; where None, what is active acts on all.

    Raises:
        OutOfMemoryError: there is not even memory for these.
    """
    with _resting(model):
        return next((how for how in WAYS if not _fault(model, how, name)), None)


@enough_memory("quantise the base, or take a smaller one")
def why_not(model: nn.Module, name: str | None = None) -> str:
    """In a few words, what of a model keeps its rows from being packed, where `way` found none: itself or its adapter.

    Raises:
        OutOfMemoryError: there is not even memory to try it.
    """
    with _resting(model):
        with only(model):
            faults = [_fault(model, how, None) for how in WAYS]
        if all(faults):
            return f"{type(model).__name__} {faults[-1]}"
        return f"the adapter {[_fault(model, how, name) for how in WAYS][-1]}"


@contextmanager
def _resting(model: nn.Module) -> Iterator[None]:
    """Within the block the model is not in training, and keeps nothing for gradients."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


def _fault(model: nn.Module, how: Way, name: str | None) -> str:
    """Empty where some rows compute packed what they compute alone, and do not heed what stands in another row."""
    try:
        alone, packed, other = _trial(model, how, name)
    except Exception as error:  # whatever a model raises that was not made for this
        if is_shortage(error):
            raise
        return f"takes no packed rows ({type(error).__name__})"
    spread = float((alone - alone.mean()).abs().max())
    leak = float((packed - other)[:, _TRIED[0] :].abs().max())
    if leak > _LEAK * spread:
        return "would let a row see the one before it"
    if float((packed - alone).abs().max()) > _noise(model) * spread:
        return "computes something else of packed rows"
    return "" if _goes_on(model, how) else "has tables that a packed row would run out of"


def _trial(model: nn.Module, how: Way, name: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (1, total, vocabulary) of rows alone, of the same packed, and packed with another first row."""
    where = next(model.parameters()).device
    vocabulary = cast(Any, model).get_input_embeddings().weight.shape[0]
    ids = (torch.arange(sum(_TRIED), device=where) * 7 + 3) % vocabulary
    changed = torch.cat((ids[: _TRIED[0]].flip(0), ids[_TRIED[0] :]))
    places = torch.cat([torch.arange(length, device=where) for length in _TRIED])[None]
    names = (name, None, name)  # of each row
    alone = []
    for row, own in zip(_rows_of(ids), names, strict=True):
        with nullcontext() if name is None else only(model, *([own] if own else [])):
            alone.append(_logits(model, row[None]))
    with apart(model, how, _TRIED), nullcontext() if name is None else per_row(model, names):
        return torch.cat(alone, dim=1), _logits(model, ids[None], places), _logits(model, changed[None], places)


def _goes_on(model: nn.Module, how: Way) -> bool:
    """Whether a packed row may be longer than any row by itself: the model's own attention may have tables that end."""
    longest = all_positions(model)
    if how == "rows" or longest is None:
        return True
    try:
        with rehearsal(model) as twin:
            return not _runs(twin, how, sum(_TRIED)) or _runs(twin, how, longest + 1)
    except Exception as error:  # what cannot be made without weights cannot be tried
        if is_shortage(error):
            raise
        return True


def _runs(twin: nn.Module, how: Way, total: int) -> bool:
    """Whether a model without weights comes through two rows of so many tokens together."""
    lengths = (total // 2, total - total // 2)
    places = torch.cat([torch.arange(length) for length in lengths])[None]
    try:
        with apart(twin, how, lengths):
            _logits(twin, torch.zeros(total, dtype=torch.long)[None], places)
    except Exception as error:  # whatever a model raises that was not made for this
        if is_shortage(error):
            raise
        return False
    return True


def _noise(model: nn.Module) -> float:
    """How far the same row may be from itself in another kernel, of the logits' spread."""
    half = next(model.parameters()).dtype in (torch.bfloat16, torch.float16)
    return 5e-2 if half else 1e-3


def _rows_of(ids: Tensor) -> list[Tensor]:
    return list(ids.tensor_split([_TRIED[0], sum(_TRIED[:2])]))


def _logits(model: nn.Module, ids: Tensor, places: Tensor | None = None) -> Tensor:
    told = {"position_ids": places} if places is not None and takes_positions(model) else {}
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **told).logits
    return cast(Tensor, logits).float()
