"""Phi-3: q, k, v one after the other in `qkv_proj`, with fewer heads in k and v; gate and up in `gate_up_proj`."""

from typing import Any

from llmad import Backbone, Fused, hookimpl


def _shape(width: int, inner: int, layers: int, heads: int, key_heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "phi3",
        "vocab_size": 32064,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        **more,
    }


def _heads(part: int) -> Fused:
    """All heads of q, or of k, or of v."""
    shares = ("num_attention_heads", "num_key_value_heads", "num_key_value_heads")
    return Fused("self_attn.qkv_proj", part, shares)


PHI3 = Backbone(
    name="phi3",
    summary="Phi-3, and the Phi-3.5 and Phi-4 that share its layout",
    model_types=("phi3",),
    model="model",
    embed="model.embed_tokens",
    head="lm_head",
    blocks="model.layers",
    parts={
        "attn": "self_attn",
        "attn.q": _heads(0),
        "attn.k": _heads(1),
        "attn.v": _heads(2),
        "attn.o": "self_attn.o_proj",
        "mlp": "mlp",
        "mlp.gate": Fused("mlp.gate_up_proj", 0, shares=(1, 1)),
        "mlp.up": Fused("mlp.gate_up_proj", 1, shares=(1, 1)),
        "mlp.down": "mlp.down_proj",
    },
    shapes={
        "phi-3-mini": _shape(3072, 8192, 32, 32, 32),
        "phi-3-medium": _shape(5120, 17920, 40, 40, 10),
        "phi-3.5-mini": _shape(3072, 8192, 32, 32, 32),
        "phi-4": _shape(5120, 17920, 40, 40, 10, vocab_size=100352),
        "phi-4-mini": _shape(
            3072, 8192, 32, 24, 8, vocab_size=200064, tie_word_embeddings=True, partial_rotary_factor=0.75
        ),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The Phi-3 layout."""
    return [PHI3]
