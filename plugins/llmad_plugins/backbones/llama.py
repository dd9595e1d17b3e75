"""LLaMA and the families that share its layout: separate q, k, v, o and gate, up, down in `model.layers`."""

from typing import Any

from llmad import Backbone, hookimpl


def _shape(width: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    """A config of the LLaMA kind; more where a size departs from the first generation."""
    return {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **more,
    }


_THIRD: dict[str, Any] = {"vocab_size": 128256, "num_key_value_heads": 8}
_SMALL: dict[str, Any] = {**_THIRD, "tie_word_embeddings": True}
_SMOL: dict[str, Any] = {"vocab_size": 49152, "tie_word_embeddings": True}

LLAMA = Backbone(
    name="llama",
    summary="LLaMA, TinyLlama, SmolLM, and look-alikes: Cohere, StableLM, EXAONE, Nemotron, Apertus, ...",
    model_types=(
        "llama", "smollm3", "cohere", "cohere2", "exaone4", "seed_oss", "helium", "arcee", "stablelm", "ernie4_5",
        "hunyuan_v1_dense", "diffllama", "cwm", "apertus", "nemotron", "internlm3", "hyperclovax",
    ),
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
        "mlp.gate": "mlp.gate_proj",
        "mlp.up": "mlp.up_proj",
        "mlp.down": "mlp.down_proj",
    },
    shapes={
        "llama-7b": _shape(4096, 11008, 32, 32),
        "llama-13b": _shape(5120, 13824, 40, 40),
        "llama-30b": _shape(6656, 17920, 60, 52),
        "llama-65b": _shape(8192, 22016, 80, 64),
        "llama-2-7b": _shape(4096, 11008, 32, 32),
        "llama-2-13b": _shape(5120, 13824, 40, 40),
        "llama-2-70b": _shape(8192, 28672, 80, 64, num_key_value_heads=8),
        "llama-3-8b": _shape(4096, 14336, 32, 32, **_THIRD),
        "llama-3-70b": _shape(8192, 28672, 80, 64, **_THIRD),
        "llama-3.1-8b": _shape(4096, 14336, 32, 32, **_THIRD),
        "llama-3.1-70b": _shape(8192, 28672, 80, 64, **_THIRD),
        "llama-3.1-405b": _shape(16384, 53248, 126, 128, **_THIRD),
        "llama-3.2-1b": _shape(2048, 8192, 16, 32, **_SMALL),
        "llama-3.2-3b": _shape(3072, 8192, 28, 24, **_SMALL),
        "tinyllama-1.1b": _shape(2048, 5632, 22, 32, num_key_value_heads=4),
        "smollm2-135m": _shape(576, 1536, 30, 9, num_key_value_heads=3, **_SMOL),
        "smollm2-360m": _shape(960, 2560, 32, 15, num_key_value_heads=5, **_SMOL),
        "smollm2-1.7b": _shape(2048, 8192, 24, 32, **_SMOL),
        "smollm3-3b": _shape(2048, 11008, 36, 16, **{**_SMALL, "model_type": "smollm3", "num_key_value_heads": 4}),
    },
)  # fmt: skip


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The LLaMA layout."""
    return [LLAMA]
