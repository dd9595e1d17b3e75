"""JetMoE: k and v are the halves of `kv_proj`; q and the output are mixtures of their own, which have no role."""

from llmad import Backbone, Fused, Stacked, hookimpl

JETMOE = Backbone(
    name="jetmoe",
    summary="JetMoE",
    model_types=("jetmoe",),
    model="model",
    embed="model.embed_tokens",
    head="lm_head",
    blocks="model.layers",
    parts={
        "attn": "self_attention",
        "attn.k": Fused("self_attention.kv_proj", 0, shares=(1, 1)),
        "attn.v": Fused("self_attention.kv_proj", 1, shares=(1, 1)),
        "mlp": "mlp",
        "expert.gate": Stacked("mlp.input_linear", "weight", part=0, parts=2),
        "expert.up": Stacked("mlp.input_linear", "weight", part=1, parts=2),
        "expert.down": Stacked("mlp.output_linear", "weight"),
    },
    shapes={
        "jetmoe-8b": {
            "model_type": "jetmoe",
            "vocab_size": 32000,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 24,
            "num_key_value_heads": 16,
            "kv_channels": 128,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The JetMoE layout."""
    return [JETMOE]
