"""OPT: separate q, k, v; the MLP's two linears stand in the block itself, so there is no `mlp` module."""

from typing import Any

from llmad import Backbone, hookimpl


def _shape(width: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "opt",
        "vocab_size": 50272,
        "hidden_size": width,
        "word_embed_proj_dim": width,
        "ffn_dim": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **more,
    }


OPT = Backbone(
    name="opt",
    summary="OPT",
    model_types=("opt",),
    model="model.decoder",
    embed="model.decoder.embed_tokens",
    head="lm_head",
    blocks="model.decoder.layers",
    parts={
        "attn": "self_attn",
        "attn.q": "self_attn.q_proj",
        "attn.k": "self_attn.k_proj",
        "attn.v": "self_attn.v_proj",
        "attn.o": "self_attn.out_proj",
        "mlp.up": "fc1",
        "mlp.down": "fc2",
    },
    shapes={
        "opt-125m": _shape(768, 12, 12),
        "opt-350m": _shape(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
        "opt-1.3b": _shape(2048, 24, 32),
        "opt-2.7b": _shape(2560, 32, 32),
        "opt-6.7b": _shape(4096, 32, 32),
        "opt-13b": _shape(5120, 40, 40),
        "opt-30b": _shape(7168, 48, 56),
        "opt-66b": _shape(9216, 64, 72),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The OPT layout."""
    return [OPT]
