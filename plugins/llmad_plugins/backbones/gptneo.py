"""GPT-Neo: separate q, k, v one module deeper than usual, as global and local attention take turns."""

from typing import Any

from llmad import Backbone, hookimpl


def _shape(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "gpt_neo",
        "vocab_size": 50257,
        "hidden_size": width,
        "num_layers": layers,
        "num_heads": heads,
        "attention_types": [[["global", "local"], layers // 2]],
    }


GPT_NEO = Backbone(
    name="gpt-neo",
    summary="GPT-Neo",
    model_types=("gpt_neo",),
    model="transformer",
    embed="transformer.wte",
    head="lm_head",
    blocks="transformer.h",
    parts={
        "attn": "attn.attention",
        "attn.q": "attn.attention.q_proj",
        "attn.k": "attn.attention.k_proj",
        "attn.v": "attn.attention.v_proj",
        "attn.o": "attn.attention.out_proj",
        "mlp": "mlp",
        "mlp.up": "mlp.c_fc",
        "mlp.down": "mlp.c_proj",
    },
    shapes={
        "gpt-neo-125m": _shape(768, 12, 12),
        "gpt-neo-1.3b": _shape(2048, 24, 16),
        "gpt-neo-2.7b": _shape(2560, 32, 20),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The GPT-Neo layout."""
    return [GPT_NEO]
