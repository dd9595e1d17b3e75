"""DeepSeek: latent attention, where k and v come out of `kv_b_proj` head by head; stacked experts, and shared ones.

The parts of q and k that carry the position are made apart from the rest: of k, `attn.k` is what comes from the latent.
The shared experts and the plain MLPs of the first blocks have the roles `mlp.*`.
"""

from typing import Any

from llmad import Backbone, Fused, Stacked, hookimpl


def _shape(kind: str, width: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "kv_lora_rank": 512,
        **more,
    }


def _experts(routed: int, shared: int, chosen: int, inner: int, dense: int = 1) -> dict[str, Any]:
    return {
        "n_routed_experts": routed, "n_shared_experts": shared, "num_experts_per_tok": chosen,
        "moe_intermediate_size": inner, "first_k_dense_replace": dense,
    }  # fmt: skip


def _latent(part: int) -> Fused:
    """A part of each head's block: k without position, then v."""
    return Fused("self_attn.kv_b_proj", part, ("qk_nope_head_dim", "v_head_dim"), blocks="num_attention_heads")


_TWO: dict[str, Any] = {"vocab_size": 102400, "topk_method": "greedy"}
_THREE: dict[str, Any] = {"vocab_size": 129280, "q_lora_rank": 1536}

DEEPSEEK = Backbone(
    name="deepseek",
    summary="DeepSeek-V2 and V3, and GLM's mixtures with latent attention",
    model_types=("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"),
    model="model",
    embed="model.embed_tokens",
    head="lm_head",
    blocks="model.layers",
    parts={
        "attn": "self_attn",
        "attn.q": ("self_attn.q_proj", "self_attn.q_b_proj"),
        "attn.k": _latent(0),
        "attn.v": _latent(1),
        "attn.o": "self_attn.o_proj",
        "mlp": "mlp",
        "mlp.gate": ("mlp.gate_proj", "mlp.shared_experts.gate_proj"),
        "mlp.up": ("mlp.up_proj", "mlp.shared_experts.up_proj"),
        "mlp.down": ("mlp.down_proj", "mlp.shared_experts.down_proj"),
        "expert.gate": Stacked("mlp.experts", "gate_up_proj", part=0, parts=2),
        "expert.up": Stacked("mlp.experts", "gate_up_proj", part=1, parts=2),
        "expert.down": Stacked("mlp.experts", "down_proj"),
    },
    shapes={
        "deepseek-v2-lite": _shape(
            "deepseek_v2", 2048, 10944, 27, 16, q_lora_rank=None, **_TWO, **_experts(64, 2, 6, 1408)
        ),
        "deepseek-v2": _shape(
            "deepseek_v2", 5120, 12288, 60, 128, q_lora_rank=1536, **_TWO, **_experts(160, 2, 6, 1536)
        ),
        "deepseek-v3": _shape("deepseek_v3", 7168, 18432, 61, 128, **_THREE, **_experts(256, 1, 8, 2048, dense=3)),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The DeepSeek layout."""
    return [DEEPSEEK]
