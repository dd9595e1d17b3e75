"""GPT-2: q, k, v are the thirds of `c_attn`; its linears are transformers' Conv1D, whose weight is transposed."""

from typing import Any

from llmad import Backbone, Fused, hookimpl


def _shape(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {"model_type": "gpt2", "vocab_size": 50257, "n_embd": width, "n_layer": layers, "n_head": heads}


GPT2 = Backbone(
    name="gpt2",
    summary="GPT-2",
    model_types=("gpt2",),
    model="transformer",
    embed="transformer.wte",
    head="lm_head",
    blocks="transformer.h",
    parts={
        "attn": "attn",
        "attn.q": Fused("attn.c_attn", 0),
        "attn.k": Fused("attn.c_attn", 1),
        "attn.v": Fused("attn.c_attn", 2),
        "attn.o": "attn.c_proj",
        "mlp": "mlp",
        "mlp.up": "mlp.c_fc",
        "mlp.down": "mlp.c_proj",
    },
    shapes={
        "gpt2": _shape(768, 12, 12),
        "gpt2-medium": _shape(1024, 24, 16),
        "gpt2-large": _shape(1280, 36, 20),
        "gpt2-xl": _shape(1600, 48, 25),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The GPT-2 layout."""
    return [GPT2]
