"""Write four small backbones with random weights, one of each described family, to try things on offline.

    python examples/random_backbones.py backbones

Each folder is an ordinary Hugging Face one: config, safetensors, tokenizer (that of the embedded backbone).
"""

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from llmad.source import find

WIDTH, LAYERS, HEADS, POSITIONS = 64, 2, 4, 2048
CONFIGS = {
    "llama": {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "max_position_embeddings": POSITIONS,
    },
    "bloom": {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS},
    "opt": {
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "ffn_dim": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
    },
    "gptj": {
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "rotary_dim": WIDTH // HEADS,
        "n_positions": POSITIONS,
    },
}


def main(folder: Path) -> None:
    """Write the four folders into `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(find("abacus"), local_files_only=True)
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    for kind, shape in CONFIGS.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **special))
        model.save_pretrained(folder / kind)
        tokenizer.save_pretrained(folder / kind)
        print(f"{folder / kind}: {sum(weight.numel() for weight in model.parameters()):,} parameters")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
