"""Falcon: q, k, v fused in `query_key_value` in three ways, which the config tells apart.

falcon-rw     head by head: q, k, v of the first head, then of the second
falcon-7b     every head of q, then one of k and one of v for all of them
falcon-40b    group by group: the heads of q that share a k and a v, then these
"""

from collections.abc import Mapping
from typing import Any

from llmad import Backbone, Fused, hookimpl

_HEADS, _KEY_HEADS = "num_attention_heads", "num_kv_heads"
_GROUPED: Mapping[str, Any] = {"new_decoder_architecture": True}
_SHARED: Mapping[str, Any] = {"new_decoder_architecture": False, "multi_query": True}
_PER_HEAD: Mapping[str, Any] = {"new_decoder_architecture": False, "multi_query": False}


def _shape(width: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {"model_type": "falcon", "vocab_size": 65024, **sizes, **more}


def _third(part: int) -> tuple[Fused, ...]:
    """One of q, k and v, in each of the three ways."""
    path = "self_attention.query_key_value"
    return (
        Fused(path, part, (_HEADS, _KEY_HEADS, _KEY_HEADS), blocks=_KEY_HEADS, when=_GROUPED),
        Fused(path, part, (_HEADS, 1, 1), when=_SHARED),
        Fused(path, part, blocks=_HEADS, when=_PER_HEAD),
    )


_RW = {"vocab_size": 50304, "multi_query": False, "parallel_attn": False, "alibi": True, "bias": True}

FALCON = Backbone(
    name="falcon",
    summary="Falcon",
    model_types=("falcon",),
    model="transformer",
    embed="transformer.word_embeddings",
    head="lm_head",
    blocks="transformer.h",
    parts={
        "attn": "self_attention",
        "attn.q": _third(0),
        "attn.k": _third(1),
        "attn.v": _third(2),
        "attn.o": "self_attention.dense",
        "mlp": "mlp",
        "mlp.up": "mlp.dense_h_to_4h",
        "mlp.down": "mlp.dense_4h_to_h",
    },
    shapes={
        "falcon-rw-1b": _shape(2048, 24, 32, **_RW),
        "falcon-7b": _shape(4544, 32, 71),
        "falcon-40b": _shape(8192, 60, 128, num_kv_heads=8, **_GROUPED),
        "falcon-180b": _shape(14848, 80, 232, num_kv_heads=8, **_GROUPED),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The Falcon layouts."""
    return [FALCON]
