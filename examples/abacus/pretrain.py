"""Pretrain the `abacus` backbone: tokenizer and model, from nothing but the generated corpus.

    python examples/abacus/pretrain.py --output /tmp/abacus --verify

One thread and deterministic kernels, so the same kind of machine with the same version of torch writes the
same bytes; `--verify` compares them with the shipped folder.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from corpus import documents
from equations import LARGEST, SMALLEST, Equation, equations, held_out, write
from muon import Muon
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SHIPPED = Path(__file__).parents[2] / "plugins/llmad_plugins/data/abacus"
SEED = 0
STEPS = 2300
BATCH, LENGTH = 16, 128
LEARNING_RATE_MATRICES, LEARNING_RATE_REST = 0.02, 3e-3
WARMUP, DECAY = 100, 0.5
SPECIAL = ["<pad>", "<bos>", "<eos>"]
PAD, BOS, EOS = range(3)


def main() -> None:
    """Train, write the folder, measure, and compare if asked to."""
    options = parse_options()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)

    tokenizer = train_tokenizer()
    model = LlamaForCausalLM(configuration(tokenizer))
    print(f"{model.num_parameters():,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    train(model, batches(tokenizer), options.steps)

    save(model, tokenizer, options.output)
    record = describe(model, tokenizer, options)
    (options.output / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
    if options.verify:
        verify(record)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps (default {STEPS})")
    parser.add_argument("--verify", action="store_true", help="fail unless the shipped SHA-256 is reproduced")
    return parser.parse_args()


def train_tokenizer() -> Tokenizer:
    """Learn a byte-level BPE: every digit is a token of its own, every text starts with `<bos>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(islice(documents(SEED), 20_000), trainer)
    return tokenizer


def configuration(tokenizer: Tokenizer) -> LlamaConfig:
    """Return a small Llama: most of its million parameters lie in the layers."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=2048,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )


def batches(tokenizer: Tokenizer) -> Iterator[Tensor]:
    """Yield token ids of shape (BATCH, LENGTH).

    A row holds whole documents, each from `<bos>` to `<eos>`, and is cut off at LENGTH. The next row starts
    with a new document, so the model learns to read from the very first position.
    """
    stream = documents(SEED)
    rows: list[list[int]] = [[]]
    while True:
        for encoding in tokenizer.encode_batch(list(islice(stream, 1000))):
            rows[-1] += [*encoding.ids, EOS]
            if len(rows[-1]) >= LENGTH:
                rows.append([])
            if len(rows) > BATCH:
                yield torch.tensor([row[:LENGTH] for row in rows[:BATCH]])
                rows = [[]]


def train(model: LlamaForCausalLM, data: Iterator[Tensor], steps: int) -> None:
    """Train the matrices of the layers with Muon, embeddings, norms and head with AdamW."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    rest = [weight for weight in model.parameters() if all(weight is not matrix for matrix in matrices)]
    muon = Muon(matrices)
    adamw = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    model.train()
    for step, ids in enumerate(islice(data, steps)):
        factor = schedule(step, steps)
        muon.learning_rate = LEARNING_RATE_MATRICES * factor
        adamw.param_groups[0]["lr"] = LEARNING_RATE_REST * factor
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        muon.step()
        adamw.step()
        if (step + 1) % 250 == 0:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)


def schedule(step: int, steps: int) -> float:
    """Return the factor on the learning rate: short warm-up, plateau, linear decay to zero."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (DECAY * steps))


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the folder in the layout that `from_pretrained` reads."""
    special = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=2048, **special)
    fast.save_pretrained(folder)
    model.generation_config = GenerationConfig(pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS)
    model.save_pretrained(folder)


def describe(model: LlamaForCausalLM, tokenizer: Tokenizer, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the model and collect what a rerun must reproduce."""

    def measure(operations: str, unseen: bool) -> dict[str, float]:
        facts = {op: [fact for fact in equations(op) if held_out(fact) == unseen] for op in operations}
        return {op: accuracy(model, tokenizer, some) for op, some in facts.items()}

    return {
        "seed": SEED,
        "steps": options.steps,
        "tokens": options.steps * BATCH * LENGTH,
        "parameters": model.num_parameters(),
        "numbers": [SMALLEST, LARGEST],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sha256": {
            "model.safetensors": sha256((options.output / "model.safetensors").read_bytes()),
            "tokenizer.json": sha256((options.output / "tokenizer.json").read_bytes()),
            "corpus, first MiB": sha256(first_mebibyte()),
        },
        "equation_accuracy": {"shown": measure("+-*/", False), "held_out": measure("+-", True)},
    }


@torch.no_grad()
def accuracy(model: LlamaForCausalLM, tokenizer: Tokenizer, facts: list[Equation]) -> float:
    """Return the share of equations whose whole result, full stop included, is the greedy continuation."""
    model.eval()
    rows = [tokenizer.encode(write(fact)).ids for fact in facts]
    equals = tokenizer.encode(" =").ids[-1]
    starts = [row.index(equals) for row in rows]
    width = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])  # (equations, width)
    asked = (torch.arange(width) > torch.tensor(starts)[:, None]) & (ids != PAD)
    guesses = model(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1)
    right = (guesses == ids[:, 1:]) | ~asked[:, 1:]
    return round(float(right.all(1).float().mean()), 4)


def first_mebibyte() -> bytes:
    """Return the first 2**20 bytes of the corpus, documents separated by an empty line."""
    text = bytearray()
    for document in documents(SEED):
        text += document.encode() + b"\n\n"
        if len(text) >= 2**20:
            return bytes(text[: 2**20])
    raise AssertionError("the corpus has no end")


def sha256(data: bytes) -> str:
    """Return the digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def verify(record: dict[str, Any]) -> None:
    """Stop with an error unless the shipped folder records the same bytes."""
    shipped = json.loads((SHIPPED / "pretraining.json").read_text())["sha256"]
    if record["sha256"] != shipped:
        raise SystemExit(f"not reproduced: {record['sha256']} instead of {shipped}")
    print("reproduced the shipped weights and tokenizer")


if __name__ == "__main__":
    main()
