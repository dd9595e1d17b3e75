"""GPT-J: separate q, k, v; attention and MLP run side by side on the same input."""

from typing import Any

from llmad import Backbone, hookimpl

_SIX_BILLION: dict[str, Any] = {
    "model_type": "gptj",
    "vocab_size": 50400,
    "n_embd": 4096,
    "n_layer": 28,
    "n_head": 16,
    "rotary_dim": 64,
    "tie_word_embeddings": False,
}

GPTJ = Backbone(
    name="gptj",
    summary="GPT-J",
    model_types=("gptj",),
    model="transformer",
    embed="transformer.wte",
    head="lm_head",
    blocks="transformer.h",
    parts={
        "attn": "attn",
        "attn.q": "attn.q_proj",
        "attn.k": "attn.k_proj",
        "attn.v": "attn.v_proj",
        "attn.o": "attn.out_proj",
        "mlp": "mlp",
        "mlp.up": "mlp.fc_in",
        "mlp.down": "mlp.fc_out",
    },
    shapes={"gptj-6b": _SIX_BILLION},
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The GPT-J layout."""
    return [GPTJ]
