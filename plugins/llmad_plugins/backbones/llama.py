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

LLAMA = Backbone(
    name="llama",
    summary="LLaMA and its look-alikes: Mistral, Qwen, Gemma, OLMo, Granite, SmolLM, ...",
    model_types=(
        "llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "vaultgemma",
        "olmo", "olmo2", "olmo3", "granite", "smollm3", "cohere", "cohere2", "exaone4", "seed_oss", "helium", "arcee",
        "stablelm", "ernie4_5", "hunyuan_v1_dense", "diffllama", "cwm",
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
        "mistral-7b": _shape(4096, 14336, 32, 32, model_type="mistral", num_key_value_heads=8),
    },
)  # fmt: skip


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The LLaMA layout."""
    return [LLAMA]
