"""Packing: the rows of a batch end to end in one row of tokens, with attention kept inside each of them.

Padding costs what tokens cost; packed rows have none. The model is told the rows' positions, and its attention is made
to keep them apart through transformers' attention interface, in one of two ways:

    rows     the attention of each row by itself: SDPA for rows of one length, or one `varlen_attn` on CUDA
    blocks   the model's own attention, with a mask that has a block for each row

Which of them a model can do, if any, is tried out (`packable`).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from inspect import signature
from itertools import accumulate, groupby
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function, sdpa_mask

from llmad.packed import Rows, packed_rows, packing

Way = Literal["rows", "blocks"]
WAYS: dict[Way, str] = {"rows": "llmad_rows", "blocks": "llmad_blocks"}  # to the attention's name in transformers


@lru_cache(maxsize=4)
def _edges(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each row begins and the last one ends, (rows + 1,)."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


@contextmanager
def apart(model: nn.Module, how: Way, lengths: tuple[int, ...]) -> Iterator[None]:
    """Keep rows of these lengths apart in the model's attention; also in the backward pass, where that is within.

    Args:
        model: a model of transformers.
        how: of `packable.way`.
        lengths: tokens of each row; together the length of the packed row.
    """
    config = cast(Any, model).config
    own = config._attn_implementation
    with packing(Rows(lengths, own)):
        try:
            config._attn_implementation = WAYS[how]
            yield
        finally:
            config._attn_implementation = own


def takes_positions(model: nn.Module) -> bool:
    """Whether the model's forward is told the positions; others have relative ones, or none."""
    return "position_ids" in signature(type(model).forward).parameters


def _packed() -> Rows:
    rows = packed_rows()
    if rows is None:
        raise RuntimeError("attention for packed rows is called outside of `apart`")
    return rows


def _of_rows(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """Attention of each row by itself.

    Args:
        module: the model's attention.
        query: (1, heads, total, size).
        key: (1, key heads, before + total, size); what stands before is in front of every row.
        value: like `key`.
        attention_mask: (1, 1, longest, before + longest), the mask of one row; None where it is the causal one.
        more: what else the model tells its attention.

    Returns:
        (1, total, heads, size).
    """
    rows, before = _packed(), key.shape[2] - query.shape[2]
    if attention_mask is None and _varies(query, more):
        return _varlen(rows, query, key, value, more.get("scaling")), None
    inner = _own_attention(module, rows)
    runs = [(length, len(list(run))) for length, run in groupby(rows.lengths)]
    parts = []
    for q, k, v in zip(_each(query, 0, runs), _each(key, before, runs), _each(value, before, runs), strict=True):
        mask = None if attention_mask is None else attention_mask[..., : q.shape[2], : k.shape[2]]
        parts.append(inner(module, q, k, v, mask, **more)[0].flatten(0, 1))
    return torch.cat(parts)[None], None


def _each(states: Tensor, before: int, runs: list[tuple[int, int]]) -> list[Tensor]:
    """The states of rows of one length that follow one another, (rows, heads, before + length, size)."""
    sizes = [before, *(length * count for length, count in runs)]
    shared, *own = cast(Any, torch).split(states[0], sizes, 1)
    rows = [part.unflatten(1, (count, length)).transpose(0, 1) for part, (length, count) in zip(own, runs, strict=True)]
    return [torch.cat((shared.expand(len(part), -1, -1, -1), part), 2) for part in rows] if before else rows


def _own_attention(module: nn.Module, rows: Rows) -> Callable[..., Any]:
    """The model's attention without packing: SDPA, or the one that stands beside the module."""
    if rows.own == "eager":
        return _eager(module)
    return cast(Callable[..., Any], sdpa_attention_forward)


def _eager(module: nn.Module) -> Callable[..., Any]:
    return cast(Callable[..., Any], vars(sys.modules[type(module).__module__])["eager_attention_forward"])


def _varies(query: Tensor, more: dict[str, Any]) -> bool:
    """Whether one kernel can do all rows: on CUDA, in half precision, with nothing that it does not know."""
    foreign = any(more.get(name) is not None for name in ("softcap", "s_aux", "position_bias"))
    half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and half and query.shape[-1] <= 256 and not foreign and not more.get("dropout")


def _varlen(rows: Rows, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Causal attention of all rows in one kernel, (1, total, heads, size)."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    lengths = rows.lengths
    edges, longest = _edges(lengths, query.device), max(lengths)
    grouped = query.shape[1] != key.shape[1]
    out = varlen_attn(q, k, v, edges, edges, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=grouped)
    return cast(Tensor, out)[None]


def _in_blocks(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> Any:
    """The model's own attention, whose mask has the blocks."""
    return _eager(module)(module, query, key, value, attention_mask, **more)


def _row_mask(q_length: int, kv_length: int, dtype: torch.dtype = torch.float32, **more: Any) -> Tensor | None:
    """The mask of one row, (1, 1, longest, before + longest); None where that is the causal one and goes without.

    A window or a chunk of attention counts from the beginning of the row, as it does for a row alone.
    """
    rows, before = _packed(), kv_length - q_length
    if not before and rows.own != "eager" and more.get("mask_function") is causal_mask_function:
        return None
    seen = _seen(rows, before, more)
    if rows.own == "eager":
        return _additive(seen, dtype)
    causal = seen.new_ones(seen.shape).tril_() if not before else None
    return None if causal is not None and torch.equal(seen, causal) else seen


def _block_mask(q_length: int, kv_length: int, dtype: torch.dtype = torch.float32, **more: Any) -> Tensor:
    """A mask with a block for each row, (1, 1, total, before + total), to be added."""
    rows, before = _packed(), kv_length - q_length
    seen = _seen(rows, before, more)
    whole = seen.new_zeros((1, 1, q_length, kv_length))
    for start, length in zip(accumulate(rows.lengths, initial=0), rows.lengths, strict=False):
        here = slice(start, start + length)
        whole[..., here, :before] = seen[..., :length, :before]
        whole[..., here, before + start : before + start + length] = seen[..., :length, before : before + length]
    return _additive(whole, dtype)


def _seen(rows: Rows, before: int, more: dict[str, Any]) -> Tensor:
    """What each token of a row sees of it, (1, 1, longest, before + longest) of bool, as the model would have it."""
    told = {key: more[key] for key in ("mask_function", "use_vmap", "device") if key in more}
    longest = max(rows.lengths)
    seen = sdpa_mask(
        batch_size=1,
        q_length=longest,
        kv_length=before + longest,
        q_offset=before,
        kv_offset=more.get("kv_offset", 0),
        allow_is_causal_skip=False,
        **told,
    )
    return cast(Tensor, seen)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


for _how, _attention, _mask in (("rows", _of_rows, _row_mask), ("blocks", _in_blocks, _block_mask)):
    AttentionInterface.register(WAYS[_how], _attention)  # type: ignore[index]
    AttentionMaskInterface.register(WAYS[_how], _mask)  # type: ignore[index]
