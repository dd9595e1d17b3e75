"""gpt-oss: stacked experts, their matrices transposed; gate and up take turns in the columns of `gate_up_proj`."""

from typing import Any

from llmad import Backbone, Stacked, hookimpl


def _shape(layers: int, experts: int) -> dict[str, Any]:
    return {
        "model_type": "gpt_oss",
        "vocab_size": 201088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": layers,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": experts,
        "num_experts_per_tok": 4,
    }


def _half(part: int) -> Stacked:
    """Every other column."""
    return Stacked("mlp.experts", "gate_up_proj", part, parts=2, transposed=True, interleaved=True)


GPT_OSS = Backbone(
    name="gpt-oss",
    summary="gpt-oss",
    model_types=("gpt_oss",),
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
        "expert.gate": _half(0),
        "expert.up": _half(1),
        "expert.down": Stacked("mlp.experts", "down_proj", transposed=True),
    },
    shapes={
        "gpt-oss-20b": _shape(24, 32),
        "gpt-oss-120b": _shape(36, 128),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The gpt-oss layout."""
    return [GPT_OSS]
