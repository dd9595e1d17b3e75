"""StarCoder2: separate q, k, v and o; an MLP without a gate, named as GPT-2's."""

from typing import Any

from llmad import Backbone, hookimpl


def _shape(width: int, layers: int, heads: int, key_heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "starcoder2",
        "vocab_size": 49152,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        **more,
    }


STARCODER2 = Backbone(
    name="starcoder2",
    summary="StarCoder2",
    model_types=("starcoder2",),
    model="model",
    embed="model.embed_tokens",
    head="lm_head",
    blocks="model.layers",
    parts={
        "attn": "self_attn",
        "attn.q": "self_attn.q_proj",
        "attn.k": "self_attn.k_proj",
        "attn.v": "self_attn.v_proj",
        "attn.o": "self_attn.o_proj",
        "mlp": "mlp",
        "mlp.up": "mlp.c_fc",
        "mlp.down": "mlp.c_proj",
    },
    shapes={
        "starcoder2-3b": _shape(3072, 30, 24, 2),
        "starcoder2-7b": _shape(4608, 32, 36, 4),
        "starcoder2-15b": _shape(6144, 40, 48, 4, tie_word_embeddings=False),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The StarCoder2 layout."""
    return [STARCODER2]
