"""GLM-4: separate q, k, v; the MLP's gate and up are the halves of `gate_up_proj`."""

from typing import Any

from llmad import Backbone, Fused, hookimpl


def _shape(width: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "glm4",
        "vocab_size": 151552,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "head_dim": 128,
        **more,
    }


GLM = Backbone(
    name="glm",
    summary="GLM-4 and GLM-Edge",
    model_types=("glm", "glm4"),
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
        "mlp.gate": Fused("mlp.gate_up_proj", 0, shares=(1, 1)),
        "mlp.up": Fused("mlp.gate_up_proj", 1, shares=(1, 1)),
        "mlp.down": "mlp.down_proj",
    },
    shapes={
        "glm-4-9b": _shape(4096, 13696, 40, 32, model_type="glm", attention_bias=True),
        "glm-4-9b-0414": _shape(4096, 13696, 40, 32, attention_bias=True),
        "glm-4-32b-0414": _shape(6144, 23040, 61, 48, attention_bias=False),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The GLM layout."""
    return [GLM]
