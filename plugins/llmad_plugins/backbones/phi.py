"""Phi: separate q, k, v with biases; attention and MLP run side by side on the same input."""

from typing import Any

from llmad import Backbone, hookimpl


def _shape(width: int, layers: int) -> dict[str, Any]:
    return {
        "model_type": "phi",
        "vocab_size": 51200,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
    }


PHI = Backbone(
    name="phi",
    summary="Phi-1, Phi-1.5 and Phi-2",
    model_types=("phi",),
    model="model",
    embed="model.embed_tokens",
    head="lm_head",
    blocks="model.layers",
    parts={
        "attn": "self_attn",
        "attn.q": "self_attn.q_proj",
        "attn.k": "self_attn.k_proj",
        "attn.v": "self_attn.v_proj",
        "attn.o": "self_attn.dense",
        "mlp": "mlp",
        "mlp.up": "mlp.fc1",
        "mlp.down": "mlp.fc2",
    },
    shapes={
        "phi-1": _shape(2048, 24),
        "phi-1.5": _shape(2048, 24),
        "phi-2": _shape(2560, 32),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The Phi layout."""
    return [PHI]
