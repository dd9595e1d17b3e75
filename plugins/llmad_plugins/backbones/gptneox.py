"""GPT-NeoX: q, k, v fused head by head in `query_key_value`; attention and MLP run side by side, each on its norm."""

from importlib.metadata import version
from typing import Any

from llmad import Backbone, Fused, hookimpl

# transformers 5.14 gave the head the name that it has in the other families; checkpoints keep the old one.
_HEAD = "lm_head" if tuple(map(int, version("transformers").split(".")[:2])) >= (5, 14) else "embed_out"


def _shape(width: int, layers: int, heads: int, vocabulary: int = 50304) -> dict[str, Any]:
    """A config; the largest were trained with a vocabulary padded further."""
    return {
        "model_type": "gpt_neox",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


def _third(part: int) -> Fused:
    """One part of three in each head's block of rows."""
    return Fused("attention.query_key_value", part, blocks="num_attention_heads")


GPT_NEOX = Backbone(
    name="gpt-neox",
    summary="GPT-NeoX and Pythia",
    model_types=("gpt_neox",),
    model="gpt_neox",
    embed="gpt_neox.embed_in",
    head=_HEAD,
    blocks="gpt_neox.layers",
    parts={
        "attn": "attention",
        "attn.q": _third(0),
        "attn.k": _third(1),
        "attn.v": _third(2),
        "attn.o": "attention.dense",
        "mlp": "mlp",
        "mlp.up": "mlp.dense_h_to_4h",
        "mlp.down": "mlp.dense_4h_to_h",
    },
    shapes={
        "pythia-70m": _shape(512, 6, 8),
        "pythia-160m": _shape(768, 12, 12),
        "pythia-410m": _shape(1024, 24, 16),
        "pythia-1b": _shape(2048, 16, 8),
        "pythia-1.4b": _shape(2048, 24, 16),
        "pythia-2.8b": _shape(2560, 32, 32),
        "pythia-6.9b": _shape(4096, 32, 32, 50432),
        "pythia-12b": _shape(5120, 36, 40, 50688),
        "gpt-neox-20b": _shape(6144, 44, 64, 50432),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The GPT-NeoX layout."""
    return [GPT_NEOX]
