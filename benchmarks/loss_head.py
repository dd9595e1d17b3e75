"""Time and memory of the loss behind the head: llmad beside transformers' own `model(..., labels=labels).loss`.

    python benchmarks/loss_head.py
    python benchmarks/loss_head.py --tokens 4000 --vocabulary 64000 --pairs 9

The model is a LLaMA without blocks, an embedding's output to a norm and the head, so that the loss is all there is to
measure. Both arms run forward and backward, from random states whose gradient is wanted, with the same labels. They
take turns, the ratio of each pair is taken, and the table has their median and quartiles. Losses and gradients are
asserted to agree before a figure is printed.

Memory is what the resident set of a fresh process rises by, at its peak, while one arm runs.

A processor without products of 16 bits takes minutes for a backward pass of the usual way; there the arms get fewer
tokens for the time (`--half-tokens`) and a narrow model for the memory (`--half-hidden`: logits are as wide as before).
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import quantiles
from typing import Any

import resident
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from llmad.data import IGNORED
from llmad.loss import answer_loss

ROWS = 8
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the gradients, as a share of their norm
Arm = Callable[[Any, Tensor, Tensor], Tensor]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2000, help="of a batch, in eight rows")
    parser.add_argument("--hidden", type=int, default=1024, help="width of the model")
    parser.add_argument("--vocabulary", type=int, default=32000, help="size of the vocabulary")
    parser.add_argument("--masked", type=float, default=0.58, help="share of the tokens that is not learnt")
    parser.add_argument("--pairs", type=int, default=7, help="how often each arm is timed")
    parser.add_argument("--half-tokens", type=int, default=64, help="tokens in bfloat16, for the time")
    parser.add_argument("--half-hidden", type=int, default=32, help="width in bfloat16, for the memory")
    parser.add_argument("--half-pairs", type=int, default=3, help="how often each arm is timed in bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", choices=ARMS, help="print one arm's memory, in bytes, and stop")
    parser.add_argument("--dtype", default="float32", help="of that")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    if told.peak:
        print(peak(told))
        return
    print(f"vocabulary {told.vocabulary:,}, {told.threads} threads, torch {torch.__version__}\n")
    print("| dtype | tokens | width | masked | time ratio (quartiles) | peak memory ratio | loss differs by |")
    print("|---|---|---|---|---|---|---|")
    whole = (told.tokens, told.hidden)
    row(told, torch.float32, whole, whole, told.pairs)
    row(told, torch.bfloat16, (told.half_tokens, told.hidden), (told.tokens, told.half_hidden), told.half_pairs)


def usual(model: Any, states: Tensor, labels: Tensor) -> Tensor:
    """What everybody does; the mean over the learnt tokens."""
    loss: Tensor = model(inputs_embeds=states, labels=labels, use_cache=False).loss
    return loss


def ours(model: Any, states: Tensor, labels: Tensor) -> Tensor:
    """The same, llmad's way."""
    return answer_loss(model, {"inputs_embeds": states}, labels) / (labels[:, 1:] != IGNORED).sum()


ARMS: dict[str, Arm] = {"usual": usual, "ours": ours}


def row(told: Any, dtype: torch.dtype, timed: tuple[int, int], weighed: tuple[int, int], pairs: int) -> None:
    """A line of the table, or two where the time and the memory are measured on other sizes."""
    ratios, differs = times(told, dtype, *timed, pairs)
    name = str(dtype).removeprefix("torch.")
    size = ["--tokens", str(weighed[0]), "--hidden", str(weighed[1]), "--dtype", name]
    size += ["--vocabulary", str(told.vocabulary), "--masked", str(told.masked), "--threads", str(told.threads)]
    used = {arm: fresh([*size, "--peak", arm]) for arm in ARMS}
    low, middle, high = quantiles(ratios, n=4)
    time_cell, memory_cell = f"{middle:.3f} ({low:.3f} to {high:.3f})", f"{used['ours'] / used['usual']:.3f}"
    memory_cell += f" ({used['ours'] / 2**20:.0f} of {used['usual'] / 2**20:.0f} MiB)"
    lines = {timed: [time_cell, "", f"{differs:.1e}"], weighed: ["", memory_cell, ""]}
    if timed == weighed:
        lines = {timed: [time_cell, memory_cell, f"{differs:.1e}"]}
    for (tokens, width), cells in lines.items():
        print(f"| {name} | {tokens} | {width} | {told.masked:.0%} | {' | '.join(cells)} |", flush=True)


def times(told: Any, dtype: torch.dtype, tokens: int, hidden: int, pairs: int) -> tuple[list[float], float]:
    """Paired ratios of the arms' seconds, and by what share the losses differ."""
    model, states, labels = made(told, dtype, tokens, hidden)
    answer_loss(model, {"inputs_embeds": states[:1]}, labels[:1])  # reads what is behind the head
    ratios = []
    for pair in range(pairs):
        seconds, values, grads = {}, {}, {}
        for name in sorted(ARMS, reverse=bool(pair % 2)):
            states.grad = None
            began = time.perf_counter()
            loss = ARMS[name](model, states, labels)
            loss.backward()
            seconds[name] = time.perf_counter() - began
            assert states.grad is not None
            values[name], grads[name] = float(loss.detach()), states.grad.float()
        ratios.append(seconds["ours"] / seconds["usual"])
        differs = abs(values["ours"] / values["usual"] - 1)
        apart = float((grads["ours"] - grads["usual"]).norm() / grads["usual"].norm())
        assert apart < CLOSE[dtype], f"the gradients are {apart:.1e} apart"
        assert differs < CLOSE[dtype] / 10, f"the losses are {differs:.1e} apart"
    return ratios, differs


def made(told: Any, dtype: torch.dtype, tokens: int, hidden: int) -> tuple[Any, Tensor, Tensor]:
    """A model, random states (rows, length, hidden) and their labels (rows, length)."""
    torch.manual_seed(0)
    sizes = {"hidden_size": hidden, "num_attention_heads": hidden // 16, "num_hidden_layers": 0}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=told.vocabulary, **sizes)).to(dtype).requires_grad_(False)
    states = torch.randn(ROWS, tokens // ROWS, hidden, dtype=dtype).requires_grad_()
    labels = torch.randint(told.vocabulary, states.shape[:2])
    labels[torch.rand(labels.shape) < told.masked] = IGNORED
    labels[:, 0] = IGNORED
    return base, states, labels


def fresh(arguments: list[str]) -> int:
    """One arm's memory, in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak(told: Any) -> int:
    """By how many bytes the resident set rises, at its peak."""
    model, states, labels = made(told, getattr(torch, told.dtype), told.tokens, told.hidden)
    arm = ARMS[told.peak]
    arm(model, states[:, :2], labels[:, :2].clamp(min=0)).backward()  # what the libraries keep for themselves
    states.grad = None
    before = resident.start()
    arm(model, states, labels).backward()
    return resident.peak() - before


if __name__ == "__main__":
    main()
