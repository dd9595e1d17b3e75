"""Qwen: the LLaMA layout, with biases on q, k and v in Qwen2 and norms on q and k in Qwen3."""

from dataclasses import replace
from typing import Any

from llmad import Backbone, hookimpl
from llmad_plugins.backbones.llama import LLAMA


def _shape(kind: str, width: int, inner: int, layers: int, heads: int, key_heads: int, **more: Any) -> dict[str, Any]:
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


_TIED: dict[str, Any] = {"tie_word_embeddings": True}
_PADDED: dict[str, Any] = {"vocab_size": 152064}
_HEAD: dict[str, Any] = {"head_dim": 128}

QWEN = replace(
    LLAMA,
    name="qwen",
    summary="Qwen2, Qwen2.5 and Qwen3",
    model_types=("qwen2", "qwen3"),
    shapes={
        "qwen2.5-0.5b": _shape("qwen2", 896, 4864, 24, 14, 2, **_TIED),
        "qwen2.5-1.5b": _shape("qwen2", 1536, 8960, 28, 12, 2, **_TIED),
        "qwen2.5-3b": _shape("qwen2", 2048, 11008, 36, 16, 2, **_TIED),
        "qwen2.5-7b": _shape("qwen2", 3584, 18944, 28, 28, 4, **_PADDED),
        "qwen2.5-14b": _shape("qwen2", 5120, 13824, 48, 40, 8, **_PADDED),
        "qwen2.5-32b": _shape("qwen2", 5120, 27648, 64, 40, 8, **_PADDED),
        "qwen2.5-72b": _shape("qwen2", 8192, 29568, 80, 64, 8, **_PADDED),
        "qwen3-0.6b": _shape("qwen3", 1024, 3072, 28, 16, 8, **_HEAD, **_TIED),
        "qwen3-1.7b": _shape("qwen3", 2048, 6144, 28, 16, 8, **_HEAD, **_TIED),
        "qwen3-4b": _shape("qwen3", 2560, 9728, 36, 32, 8, **_HEAD, **_TIED),
        "qwen3-8b": _shape("qwen3", 4096, 12288, 36, 32, 8, **_HEAD),
        "qwen3-14b": _shape("qwen3", 5120, 17408, 40, 40, 8, **_HEAD),
        "qwen3-32b": _shape("qwen3", 5120, 25600, 64, 64, 8, **_HEAD),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The layout of Qwen's dense models."""
    return [QWEN]
