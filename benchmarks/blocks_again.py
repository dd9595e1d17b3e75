"""What it costs to compute blocks again, and how many tokens keep a device busy: what auto_find_batch_size weighs.

    python benchmarks/blocks_again.py
    python benchmarks/blocks_again.py --width 768 --blocks 4 --pairs 15

Forward and backward pass of a LLaMA of random weights in float32 with LoRA on q and v. First the same rows with their
blocks computed once and again, in turns, after the losses and gradients of both were compared; then rows of ever more
tokens in turns, whose seconds a token are told beside those of the most. Seconds are of the process, on one thread, so
that other work on the machine counts little.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import llmad
from llmad import recompute
from llmad.batching import batching
from llmad.data import Example
from llmad.loss import answer_loss

TOKENS = (4, 8, 16, 32, 64, 128, 256)


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--method", default="lora")
    told = parser.parse_args()
    torch.set_num_threads(1)
    model = made(told)
    print("| tokens | once, s | again, s | again / once |\n|---|---|---|---|")
    for tokens in (64, 256):
        compare(model, rows(tokens), told.pairs)
    print("\n| tokens | s | s a token beside the most |\n|---|---|---|")
    scale(model, told.pairs)


def made(told: argparse.Namespace) -> Any:
    """A LLaMA with an adapter, in training mode."""
    torch.manual_seed(0)
    inner = told.width * 8 // 3 // 32 * 32
    sizes = {"hidden_size": told.width, "intermediate_size": inner, "num_hidden_layers": told.blocks}
    config = LlamaConfig(vocab_size=told.vocabulary, num_attention_heads=told.width // 64, **sizes)
    return llmad.attach(LlamaForCausalLM(config), told.method).train()


def rows(tokens: int) -> list[Example]:
    """So many tokens, in up to four rows, of which the second half is learnt."""
    count = min(4, tokens // 4)
    length = tokens // count
    ids = tuple(range(5, 5 + length))
    return [Example(ids, tuple(place > length // 2 for place in range(length)))] * count


def step(model: Any, examples: Sequence[Example]) -> tuple[float, list[Tensor]]:
    """Loss and gradients."""
    how = batching(model, 0, True)
    batch = how.batch(examples)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with how.within(model, batch):
        loss = answer_loss(model, batch.inputs, batch.labels)
        grads = torch.autograd.grad(loss, trained)
    return float(loss.detach()), list(grads)


def compare(model: Any, examples: Sequence[Example], pairs: int) -> None:
    """A line: once and again in turns."""
    turns = {"once": recompute.disable, "again": recompute.enable}
    results = []
    for turn in turns.values():
        turn(model)
        results.append(step(model, examples))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(pairs):
        for name, turn in turns.items():
            turn(model)
            seconds[name].append(timed(lambda: step(model, examples)))
    recompute.disable(model)
    ratios = [again / once for once, again in zip(*seconds.values(), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    once, again = (statistics.median(every) for every in seconds.values())
    tokens = sum(len(example.ids) for example in examples)
    print(f"| {tokens} | {once:.3f} | {again:.3f} | {middle:.2f} ({low:.2f} to {high:.2f}) |", flush=True)


def scale(model: Any, rounds: int) -> None:
    """A line for each number of tokens, in turns."""
    every = {tokens: rows(tokens) for tokens in TOKENS}
    seconds: dict[int, list[float]] = {tokens: [] for tokens in TOKENS}
    for number in range(rounds + 1):
        for tokens, examples in every.items():
            taken = timed(lambda examples=examples: step(model, examples))  # type: ignore[misc]
            if number:  # the first is to warm up
                seconds[tokens].append(taken)
    most = TOKENS[-1]
    for tokens, own in seconds.items():
        ratios = [one / tokens / (other / most) for one, other in zip(own, seconds[most], strict=True)]
        print(f"| {tokens} | {statistics.median(own):.3f} | {statistics.median(ratios):.2f} |")


def timed(call: Callable[[], object]) -> float:
    """Seconds of the process that it takes."""
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
