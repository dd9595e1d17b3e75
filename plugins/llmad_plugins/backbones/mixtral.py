"""Mixtral: LLaMA's attention; the experts' matrices are stacked, gate and up as halves of `gate_up_proj`."""

from typing import Any

from llmad import Backbone, Stacked, hookimpl


def _shape(width: int, inner: int, layers: int, heads: int, key_heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "mixtral",
        "vocab_size": 32000,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        **more,
    }


_OLMOE: dict[str, Any] = {"model_type": "olmoe", "vocab_size": 50304, "num_experts": 64, "num_experts_per_tok": 8}
_PHIMOE: dict[str, Any] = {
    "model_type": "phimoe", "vocab_size": 32064, "num_local_experts": 16, "attention_bias": True, "lm_head_bias": True,
}  # fmt: skip

MIXTRAL = Backbone(
    name="mixtral",
    summary="Mixtral and the mixtures that share its layout: OLMoE, FlexOlmo, Phi-3.5-MoE, MiniMax-M2",
    model_types=("mixtral", "olmoe", "phimoe", "flex_olmo", "minimax_m2"),
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
        "expert.gate": Stacked("mlp.experts", "gate_up_proj", part=0, parts=2),
        "expert.up": Stacked("mlp.experts", "gate_up_proj", part=1, parts=2),
        "expert.down": Stacked("mlp.experts", "down_proj"),
    },
    shapes={
        "mixtral-8x7b": _shape(4096, 14336, 32, 32, 8),
        "mixtral-8x22b": _shape(6144, 16384, 56, 48, 8),
        "olmoe-1b-7b": _shape(2048, 1024, 16, 16, 16, **_OLMOE),
        "phi-3.5-moe": _shape(4096, 6400, 32, 32, 8, **_PHIMOE),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The Mixtral layout."""
    return [MIXTRAL]
