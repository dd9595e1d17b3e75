"""Granite: the LLaMA layout, with factors on the embedding, the parts and the logits."""

from dataclasses import replace
from typing import Any

from llmad import Backbone, hookimpl
from llmad_plugins.backbones.llama import LLAMA


def _shape(width: int, inner: int) -> dict[str, Any]:
    return {
        "model_type": "granite",
        "vocab_size": 49159,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    }


GRANITE = replace(
    LLAMA,
    name="granite",
    summary="Granite",
    model_types=("granite",),
    shapes={
        "granite-3.3-2b": _shape(2048, 8192),
        "granite-3.3-8b": _shape(4096, 12800),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The layout of the dense Granite models."""
    return [GRANITE]
