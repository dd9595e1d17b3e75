"""Mistral: the LLaMA layout; heads narrower than the width divided among them from Nemo on."""

from dataclasses import replace
from typing import Any

from llmad import Backbone, hookimpl
from llmad_plugins.backbones.llama import LLAMA


def _shape(width: int, inner: int, layers: int, heads: int, vocabulary: int = 32768) -> dict[str, Any]:
    return {
        "model_type": "mistral",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }


MISTRAL = replace(
    LLAMA,
    name="mistral",
    summary="Mistral and Ministral",
    model_types=("mistral", "ministral", "ministral3"),
    shapes={
        "mistral-7b": _shape(4096, 14336, 32, 32, 32000),
        "mistral-7b-v0.3": _shape(4096, 14336, 32, 32),
        "ministral-8b": _shape(4096, 12288, 36, 32, 131072),
        "mistral-nemo-12b": _shape(5120, 14336, 40, 32, 131072),
        "codestral-22b": _shape(6144, 16384, 56, 48),
        "mistral-small-24b": _shape(5120, 32768, 40, 32, 131072),
        "mistral-large-123b": _shape(12288, 28672, 88, 96),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The layout of Mistral's models."""
    return [MISTRAL]
