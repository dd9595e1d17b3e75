"""A whole backbone folder in a moment: a tiny LLaMA with a tokenizer of its own, for runs that need both."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CORPUS = ["Question: Tom has 3 pears and gets 4 more. How many?\nAnswer: 3 + 4 = 7. The answer is 7."] * 4
SPECIAL = ("<pad>", "<bos>", "<eos>")


def make(folder: Path) -> str:
    """Write the folder and return its path; random weights, and an end-of-sequence token that comes up now and then."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **ids, max_position_embeddings=256, initializer_range=0.3))
    model.save_pretrained(folder)
    return str(folder)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that splits digits."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    )
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=pad, bos_token=bos, eos_token=eos)
