"""OLMo: the LLaMA layout, with norms that have no weights at first, and after the parts from OLMo 2 on."""

from dataclasses import replace
from typing import Any

from llmad import Backbone, hookimpl
from llmad_plugins.backbones.llama import LLAMA


def _shape(kind: str, width: int, inner: int, layers: int, heads: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **more,
    }


OLMO = replace(
    LLAMA,
    name="olmo",
    summary="OLMo, OLMo 2 and OLMo 3",
    model_types=("olmo", "olmo2", "olmo3"),
    shapes={
        "olmo-1b": _shape("olmo", 2048, 8192, 16, 16, 50304, tie_word_embeddings=True),
        "olmo-7b": _shape("olmo", 4096, 11008, 32, 32, 50304),
        "olmo-2-1b": _shape("olmo2", 2048, 8192, 16, 16, 100352),
        "olmo-2-7b": _shape("olmo2", 4096, 11008, 32, 32, 100352),
        "olmo-2-13b": _shape("olmo2", 5120, 13824, 40, 40, 100352),
        "olmo-2-32b": _shape("olmo2", 5120, 27648, 64, 40, 100352, num_key_value_heads=8),
        "olmo-3-7b": _shape("olmo3", 4096, 11008, 32, 32, 100278),
        "olmo-3-32b": _shape("olmo3", 5120, 27648, 64, 40, 100278, num_key_value_heads=8),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The layout of the OLMo models."""
    return [OLMO]
