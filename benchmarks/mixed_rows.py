"""Rows of one batch with adapters of their own: llmad's `per_row` beside PEFT's `adapter_names`.

    python benchmarks/mixed_rows.py
    python benchmarks/mixed_rows.py --rows 16 --pairs 31

A LLaMA with random weights and four LoRAs of rank 8 at every linear map, rows in runs of one adapter; a forward pass of
64 tokens, and one of a single token behind a cache of 64. Both arms have the same weights, and their logits are
compared before a ratio is printed: the median of those of neighbouring calls, and their quartiles.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import llmad

NAMES = ["a", "b", "c", "d"]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8, help="of a batch")
    parser.add_argument("--pairs", type=int, default=21, help="calls of each arm")
    parser.add_argument("--hidden", type=int, default=512, help="width of the model")
    parser.add_argument("--layers", type=int, default=4, help="its blocks")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    told = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(told.threads)
    ours, theirs = models(told)
    names = sorted(NAMES[row % len(NAMES)] for row in range(told.rows))
    ids = torch.randint(3, 8000, (told.rows, 64), generator=torch.Generator().manual_seed(0))
    print("| forward pass | PEFT ms | llmad ms | ratio | quartiles |\n|---|---|---|---|---|")
    for what, tokens, known in (("64 tokens", ids, False), ("a token behind 64", ids[:, :1], True)):
        arms = [call(ours, theirs, which, names, tokens, ids if known else None) for which in ("PEFT", "llmad")]
        print(f"| {what} | {compare(arms, told.pairs)} |", flush=True)


def models(told: argparse.Namespace) -> tuple[Any, Any]:
    """llmad's model and PEFT's, with the same adapters, which do something."""
    torch.manual_seed(0)
    sizes = {"hidden_size": told.hidden, "intermediate_size": told.hidden * 43 // 16, "num_hidden_layers": told.layers}
    config = LlamaConfig(**sizes, num_attention_heads=told.hidden // 64, vocab_size=8000)
    ours, theirs = LlamaForCausalLM(config).eval(), LlamaForCausalLM(config).eval()
    theirs.load_state_dict(ours.state_dict())
    lora = peft.LoraConfig(r=8, target_modules=LINEAR, task_type="CAUSAL_LM", init_lora_weights=False)
    wrapped = peft.get_peft_model(theirs, lora, "a")
    for name in NAMES[1:]:
        wrapped.add_adapter(name, lora)
    with tempfile.TemporaryDirectory() as folder:
        wrapped.save_pretrained(folder)
        for name in NAMES:
            llmad.load(ours, f"{folder}/{name}", name)
    return ours, wrapped.eval()


def call(ours: Any, theirs: Any, which: str, names: list[str], ids: Any, before: Any) -> Callable[[], torch.Tensor]:
    """A forward pass of one arm; a cache is cut back after each, so that all have the same one."""

    def run(tokens: torch.Tensor, **more: Any) -> Any:
        if which == "PEFT":
            return theirs(tokens, adapter_names=names, **more)
        with llmad.per_row(ours, names):
            return ours(tokens, **more)

    with torch.no_grad():
        cache = None if before is None else run(before, use_cache=True).past_key_values

    @torch.no_grad()
    def forward() -> Any:
        if cache is None:
            return run(ids, use_cache=False).logits
        logits = run(ids, past_key_values=cache, use_cache=True).logits
        cache.crop(-ids.shape[1])
        return logits

    return forward


def compare(arms: list[Callable[[], torch.Tensor]], pairs: int) -> str:
    """Milliseconds of both, and their ratio."""
    first, second = (arm() for arm in arms)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
    times = [[timed(arm) for arm in arms] for _ in range(pairs)]
    low, middle, high = quantiles([ours / theirs for theirs, ours in times], n=4)
    seconds = " | ".join(f"{1000 * median(arm):.1f}" for arm in zip(*times, strict=True))
    return f"{seconds} | {middle:.2f} | {low:.2f} to {high:.2f}"


def timed(arm: Callable[[], torch.Tensor]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    arm()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
