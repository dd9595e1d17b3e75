"""Persimmon: q, k, v fused head by head in `query_key_value`; attention in LLaMA's place, the MLP as in GPT-NeoX."""

from llmad import Backbone, Fused, hookimpl


def _third(part: int) -> Fused:
    """One part of three in each head's block of rows."""
    return Fused("self_attn.query_key_value", part, blocks="num_attention_heads")


PERSIMMON = Backbone(
    name="persimmon",
    summary="Persimmon",
    model_types=("persimmon",),
    model="model",
    embed="model.embed_tokens",
    head="lm_head",
    blocks="model.layers",
    parts={
        "attn": "self_attn",
        "attn.q": _third(0),
        "attn.k": _third(1),
        "attn.v": _third(2),
        "attn.o": "self_attn.dense",
        "mlp": "mlp",
        "mlp.up": "mlp.dense_h_to_4h",
        "mlp.down": "mlp.dense_4h_to_h",
    },
    shapes={
        "persimmon-8b": {
            "model_type": "persimmon",
            "vocab_size": 262144,
            "hidden_size": 4096,
            "intermediate_size": 16384,
            "num_hidden_layers": 36,
            "num_attention_heads": 64,
        },
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The Persimmon layout."""
    return [PERSIMMON]
