"""MPT: q, k, v are the thirds of `Wqkv`; the MLP adds the residual itself."""

from typing import Any

from llmad import Backbone, Fused, hookimpl


def _shape(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {"model_type": "mpt", "vocab_size": 50432, "d_model": width, "n_layers": layers, "n_heads": heads}


MPT = Backbone(
    name="mpt",
    summary="MPT",
    model_types=("mpt",),
    model="transformer",
    embed="transformer.wte",
    head="lm_head",
    blocks="transformer.blocks",
    parts={
        "attn": "attn",
        "attn.q": Fused("attn.Wqkv", 0),
        "attn.k": Fused("attn.Wqkv", 1),
        "attn.v": Fused("attn.Wqkv", 2),
        "attn.o": "attn.out_proj",
        "mlp": "ffn",
        "mlp.up": "ffn.up_proj",
        "mlp.down": "ffn.down_proj",
    },
    residual={"mlp": "residual"},
    shapes={
        "mpt-7b": _shape(4096, 32, 32),
        "mpt-30b": _shape(7168, 48, 64),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The MPT layout."""
    return [MPT]
