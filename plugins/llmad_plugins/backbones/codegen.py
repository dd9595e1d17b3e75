"""CodeGen: `qkv_proj` is four blocks, each q, then v, then k of a quarter of the heads."""

from typing import Any

from llmad import Backbone, Fused, hookimpl


def _shape(width: int, layers: int, heads: int, rotary: int = 64) -> dict[str, Any]:
    sizes = {"n_embd": width, "n_layer": layers, "n_head": heads, "rotary_dim": rotary}
    return {"model_type": "codegen", "vocab_size": 51200, "tie_word_embeddings": False, **sizes}


def _third(part: int) -> Fused:
    """One part of three in each quarter; the model was trained on four chips."""
    return Fused("attn.qkv_proj", part, blocks=4)


CODEGEN = Backbone(
    name="codegen",
    summary="CodeGen",
    model_types=("codegen",),
    model="transformer",
    embed="transformer.wte",
    head="lm_head",
    blocks="transformer.h",
    parts={
        "attn": "attn",
        "attn.q": _third(0),
        "attn.k": _third(2),
        "attn.v": _third(1),
        "attn.o": "attn.out_proj",
        "mlp": "mlp",
        "mlp.up": "mlp.fc_in",
        "mlp.down": "mlp.fc_out",
    },
    shapes={
        "codegen-350m": _shape(1024, 20, 16, rotary=32),
        "codegen-2b": _shape(2560, 32, 32),
        "codegen-6b": _shape(4096, 33, 16),
        "codegen-16b": _shape(6144, 34, 24),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The CodeGen layout."""
    return [CODEGEN]
