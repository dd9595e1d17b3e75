"""How fast real rows are trained on: llmad as it comes, and PEFT with the Trainer as they come.

    python benchmarks/training_speed.py FOLDER/train.json
    python benchmarks/training_speed.py FOLDER/train.json --batch 4 --rows 32 --threads 1
    python benchmarks/training_speed.py FOLDER/train.json --hidden 4096 --layers 32 --dtype bfloat16 --r 32 --rows 3260

The last is LLaMA-7B's shape and the paper's rows, for a CUDA card, where its memory and its share of the card's rate of
matrix products are told too.

A LLaMA with random weights, a tokenizer made from the rows, LoRA on q, k, v, up and down; both arms train the same
weights on the same rows as often, with batches of the same number of rows, and their seconds include everything from
rows of ids to updated weights. Before that the loss and the gradient of one batch are compared. The arms take turns;
the ratio is the median of those of neighbouring runs.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import peft
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

import llmad
from llmad import data, train
from llmad.batching import Batching, batching
from llmad.loss import answer_loss
from llmad.prompt import Prompt
from llmad.recipe import Recipe
from llmad.schedule import Schedule

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
TEMPLATE = (  # the paper's
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="rows of instruction and output")
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 4], help="rows in one forward pass")
    parser.add_argument("--rows", type=int, default=48, help="rows trained on in one run")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each arm")
    parser.add_argument("--hidden", type=int, default=512, help="width of the model")
    parser.add_argument("--layers", type=int, default=8, help="its blocks")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the base")
    parser.add_argument("--r", type=int, default=8, help="rank of the adapter")
    parser.add_argument("--dropout", type=float, default=0.0, help="of the adapter")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    told = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(told.threads)
    examples = encoded(json.loads(told.data.read_text()), told.rows)
    print(f"{len(examples)} rows of {sum(len(one.ids) for one in examples):,} tokens, {told.dtype}")
    print("| batch | PEFT + Trainer, tokens/s | llmad, tokens/s | llmad / PEFT | quartiles |\n|---|---|---|---|---|")
    for size in told.batch:
        print(compare(told, examples, size), flush=True)


def encoded(rows: list[dict[str, str]], count: int) -> list[data.Example]:
    """Rows spread over the file, as ids of a byte-pair tokenizer of up to 32,000 tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<pad>", "<bos>", "<eos>"]
    trainer = trainers.BpeTrainer(vocab_size=32_000, special_tokens=special, show_progress=False)
    raw.train_from_iterator((f"{row['instruction']}\n{row['output']}" for row in rows), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    spread = rows[:: max(1, len(rows) // count)][:count]
    return data.encode(spread, Prompt(TEMPLATE), tokenizer, 512).examples


def compare(told: argparse.Namespace, examples: list[data.Example], size: int) -> str:
    """One row of the table."""
    torch.manual_seed(0)
    ours, theirs = make(told), make(told)
    theirs.load_state_dict(ours.state_dict())
    wrapped = adapted(theirs, told)
    with tempfile.TemporaryDirectory() as folder:
        wrapped.save_pretrained(folder)
        llmad.load(ours, folder, trainable=True)
        how = batching(ours, 0, wanted=True)
        check(ours, how, wrapped, examples[:size])
        tokens = sum(len(one.ids) for one in examples)
        pairs = []
        for _ in range(told.pairs):
            pairs.append((by_trainer(wrapped, examples, size, folder), by_llmad(ours, how, examples, size)))
    speeds = [f"{tokens / median(seconds):,.0f}" for seconds in zip(*pairs, strict=True)]
    ratios = [first / second for first, second in pairs]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    if DEVICE == "cuda":
        flops = 4 * sum(own.numel() for own in ours.parameters()) * tokens / median(ours_s for _, ours_s in pairs)
        print(f"llmad: {flops / matmul_rate(ours.dtype):.0%} of the rate of a large matrix product", file=sys.stderr)
        print(f"both models and their training: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", file=sys.stderr)
    return f"| {size} | {' | '.join(speeds)} | {median(ratios):.2f} | {low:.2f} to {high:.2f} |"


def matmul_rate(dtype: torch.dtype) -> float:
    """Operations a second of a product of two matrices of 8,192."""
    matrix = torch.randn(8192, 8192, device=DEVICE, dtype=dtype)
    for _ in range(2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(20):
            matrix @ matrix
        torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - began)


def adapted(model: Any, told: argparse.Namespace) -> Any:
    """PEFT's model; its adapter does something, so that all gradients are there to be compared."""
    config = peft.LoraConfig(
        r=told.r, lora_alpha=16, target_modules=TARGETS, lora_dropout=told.dropout, task_type="CAUSAL_LM"
    )
    wrapped = peft.get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return wrapped


def make(told: argparse.Namespace) -> Any:
    """A LLaMA with random weights and LLaMA's vocabulary size."""
    width, size = told.hidden, 128 if told.hidden >= 2048 else 64
    sizes = {"hidden_size": width, "intermediate_size": width * 43 // 16, "num_hidden_layers": told.layers}
    config = LlamaConfig(**sizes, num_attention_heads=width // size, vocab_size=32_000, pad_token_id=0)
    config.dtype = getattr(torch, told.dtype)
    with torch.device(DEVICE):
        return LlamaForCausalLM._from_config(config)


def check(ours: Any, how: Batching, theirs: Any, examples: list[data.Example]) -> None:
    """The same rows give the same loss and gradients of the same length, dropout aside."""
    ours.eval(), theirs.eval()
    batch = how.batch(examples).to(ours.device)
    with how.within(ours, batch):
        loss = answer_loss(ours, batch.inputs, batch.labels) / sum(row.learnt for row in examples)
        loss.backward()
    loss = loss.detach()
    padded = data.padded(examples, 0).to(ours.device)
    their_loss = theirs(**padded.inputs, labels=padded.labels).loss
    their_loss.backward()
    their_loss = their_loss.detach()
    bound = 1e-4 if ours.dtype == torch.float32 else 2e-2
    norms = [norm(dict(llmad.parameters(ours)).values()), norm(theirs.parameters())]
    assert abs(float(loss) / float(their_loss) - 1) < bound, (float(loss), float(their_loss))
    assert norms[1] > 0, norms
    assert abs(norms[0] / norms[1] - 1) < 10 * bound, norms
    ours.zero_grad(), theirs.zero_grad()


def norm(parameters: Any) -> float:
    """Length of all gradients."""
    return float(
        torch.stack([own.grad.float().square().sum() for own in parameters if own.grad is not None]).sum().sqrt()
    )


def by_trainer(model: Any, examples: list[data.Example], size: int, folder: str) -> float:
    """Seconds of one pass over the rows."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), pad_token="<pad>")
    rows = [
        {
            "input_ids": list(one.ids),
            "attention_mask": [1] * len(one.ids),
            "labels": data.padded([one], 0).labels[0].tolist(),
        }
        for one in examples
    ]
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=size, num_train_epochs=1, learning_rate=1e-4, save_strategy="no",
        report_to="none", disable_tqdm=True, bf16=False, use_cpu=DEVICE == "cpu",
    )  # fmt: skip
    trainer = Trainer(model, arguments, DataCollatorForSeq2Seq(tokenizer), train_dataset=rows)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    began = time.perf_counter()
    trainer.train()
    return time.perf_counter() - began


def by_llmad(model: Any, how: Batching, examples: list[data.Example], size: int) -> float:
    """Seconds of one pass over the rows."""
    recipe = Recipe(
        backbone="b", adapter="lora", task="t", per_device_train_batch_size=size, learning_rate=1e-4, warmup_ratio=0
    )
    schedule = Schedule(recipe, tuple(len(one.ids) for one in examples), 1e-4)
    began = time.perf_counter()
    adam = train.optimizer(dict(llmad.parameters(model)), recipe)
    trainee = train.Trainee(schedule, examples, adam, train.loss_scaler(model))
    for _ in train.fit(model, [trainee], how, train.accelerator()):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
