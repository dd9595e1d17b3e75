"""Qwen's mixtures: stacked experts; in Qwen2 one more that every token passes, and a plain MLP in some blocks.

The shared expert and the plain MLP have the roles `mlp.*`: both are there for every token, and no block has both.
"""

from typing import Any

from llmad import Backbone, Stacked, hookimpl


def _shape(kind: str, width: int, inner: int, layers: int, heads: int, key_heads: int, **more: int) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": 151936,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        **more,
    }


def _three(experts: int, inner: int) -> dict[str, int]:
    return {"head_dim": 128, "num_experts": experts, "num_experts_per_tok": 8, "moe_intermediate_size": inner}


QWEN_MOE = Backbone(
    name="qwen-moe",
    summary="The mixtures of Qwen1.5, Qwen2 and Qwen3",
    model_types=("qwen2_moe", "qwen3_moe"),
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
        "mlp.gate": ("mlp.gate_proj", "mlp.shared_expert.gate_proj"),
        "mlp.up": ("mlp.up_proj", "mlp.shared_expert.up_proj"),
        "mlp.down": ("mlp.down_proj", "mlp.shared_expert.down_proj"),
        "expert.gate": Stacked("mlp.experts", "gate_up_proj", part=0, parts=2),
        "expert.up": Stacked("mlp.experts", "gate_up_proj", part=1, parts=2),
        "expert.down": Stacked("mlp.experts", "down_proj"),
    },
    shapes={
        "qwen1.5-moe-a2.7b": _shape(
            "qwen2_moe", 2048, 5632, 24, 16, 16,
            num_experts=60, num_experts_per_tok=4, moe_intermediate_size=1408, shared_expert_intermediate_size=5632,
        ),
        "qwen2-57b-a14b": _shape(
            "qwen2_moe", 3584, 18944, 28, 28, 4,
            num_experts=64, num_experts_per_tok=8, moe_intermediate_size=2560, shared_expert_intermediate_size=20480,
        ),
        "qwen3-30b-a3b": _shape("qwen3_moe", 2048, 6144, 48, 32, 4, **_three(128, 768)),
        "qwen3-235b-a22b": _shape("qwen3_moe", 4096, 12288, 94, 64, 4, **_three(128, 1536)),
        "qwen3-coder-480b-a35b": _shape("qwen3_moe", 6144, 8192, 62, 96, 8, **_three(160, 2560)),
    },
)  # fmt: skip


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The layout of Qwen's mixtures."""
    return [QWEN_MOE]
