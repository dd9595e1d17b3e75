"""Gemma: the LLaMA layout, with more norms around the parts from Gemma 2 on; heads have a width of their own."""

from dataclasses import replace
from typing import Any

from llmad import Backbone, hookimpl
from llmad_plugins.backbones.llama import LLAMA


def _shape(
    kind: str,
    width: int,
    inner: int,
    layers: int,
    heads: int,
    key_heads: int,
    vocabulary: int = 256000,
    head: int = 256,
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head,
    }


GEMMA = replace(
    LLAMA,
    name="gemma",
    summary="Gemma, Gemma 2, VaultGemma, and the text models of Gemma 3",
    model_types=("gemma", "gemma2", "gemma3_text", "vaultgemma"),
    shapes={
        "gemma-2b": _shape("gemma", 2048, 16384, 18, 8, 1),
        "gemma-7b": _shape("gemma", 3072, 24576, 28, 16, 16),
        "gemma-2-2b": _shape("gemma2", 2304, 9216, 26, 8, 4),
        "gemma-2-9b": _shape("gemma2", 3584, 14336, 42, 16, 8),
        "gemma-2-27b": _shape("gemma2", 4608, 36864, 46, 32, 16, head=128),
        "gemma-3-270m": _shape("gemma3_text", 640, 2048, 18, 4, 1, 262144),
        "gemma-3-1b": _shape("gemma3_text", 1152, 6912, 26, 4, 1, 262144),
        "gemma-3-4b-text": _shape("gemma3_text", 2560, 10240, 34, 8, 4, 262208),
        "gemma-3-12b-text": _shape("gemma3_text", 3840, 15360, 48, 16, 8, 262208),
        "gemma-3-27b-text": _shape("gemma3_text", 5376, 21504, 62, 32, 16, 262208, head=128),
    },
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The layout of Gemma's text models."""
    return [GEMMA]
