"""BLOOM: q, k, v fused head by head in `query_key_value`; attention and MLP add the residual themselves."""

from typing import Any

from llmad import Backbone, Fused, hookimpl


def _shape(width: int, layers: int, heads: int) -> dict[str, Any]:
    sizes = {"hidden_size": width, "n_layer": layers, "n_head": heads}
    return {"model_type": "bloom", "vocab_size": 250880, **sizes}


def _third(part: int) -> Fused:
    """One part of three in each head's block of rows."""
    return Fused("self_attention.query_key_value", part, blocks="num_attention_heads")


BLOOM = Backbone(
    name="bloom",
    summary="BLOOM and BLOOMZ",
    model_types=("bloom",),
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
    residual={"attn": "residual", "mlp": "residual"},
    shapes={
        "bloom-560m": _shape(1024, 24, 16),
        "bloom-1b1": _shape(1536, 24, 16),
        "bloom-1b7": _shape(2048, 24, 16),
        "bloom-3b": _shape(2560, 30, 32),
        "bloom-7b1": _shape(4096, 30, 32),
        "bloom-176b": _shape(14336, 70, 112),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The BLOOM layout."""
    return [BLOOM]
