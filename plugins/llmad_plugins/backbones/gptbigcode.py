"""GPT-BigCode: `c_attn` makes every head of q, then one of k and one of v; or q, k, v head by head."""

from typing import Any

from llmad import Backbone, Fused, hookimpl

_HEADS = "num_attention_heads"


def _shape(width: int, layers: int, heads: int, positions: int = 8192, vocabulary: int = 49152) -> dict[str, Any]:
    sizes = {"n_embd": width, "n_inner": 4 * width, "n_layer": layers, "n_head": heads, "n_positions": positions}
    return {"model_type": "gpt_bigcode", "vocab_size": vocabulary, **sizes}


def _third(part: int) -> tuple[Fused, Fused]:
    """One of q, k and v, in both ways."""
    shared = Fused("attn.c_attn", part, (_HEADS, 1, 1), when={"multi_query": True})
    return shared, Fused("attn.c_attn", part, blocks=_HEADS, when={"multi_query": False})


GPT_BIGCODE = Backbone(
    name="gpt-bigcode",
    summary="StarCoder and SantaCoder",
    model_types=("gpt_bigcode",),
    model="transformer",
    embed="transformer.wte",
    head="lm_head",
    blocks="transformer.h",
    parts={
        "attn": "attn",
        "attn.q": _third(0),
        "attn.k": _third(1),
        "attn.v": _third(2),
        "attn.o": "attn.c_proj",
        "mlp": "mlp",
        "mlp.up": "mlp.c_fc",
        "mlp.down": "mlp.c_proj",
    },
    shapes={
        "santacoder": _shape(2048, 24, 16, 2048, 49280),
        "starcoderbase-1b": _shape(2048, 24, 16),
        "starcoderbase-3b": _shape(2816, 36, 22),
        "starcoderbase-7b": _shape(4096, 42, 32),
        "starcoder": _shape(6144, 40, 48),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The GPT-BigCode layout."""
    return [GPT_BIGCODE]
