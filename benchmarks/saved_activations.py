"""What autograd keeps for LoRA beyond what the frozen model keeps: llmad beside PEFT.

    python benchmarks/saved_activations.py

Bytes of the tensors that a forward leaves for its backward, each storage once and parameters left out, less those of
the frozen model. In float32 without dropout, and in bfloat16 with a dropout of 0.05, adapters in float32.
"""

import argparse
import warnings

import torch
from step_arms import Arm, Shape, arms, batch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

SETTINGS = {"float32": (torch.float32, 0.0), "bfloat16, dropout 0.05": (torch.bfloat16, 0.05)}


def main() -> None:
    """Measure, and print one line an arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512, help="width of the model")
    parser.add_argument("--layers", type=int, default=2, help="blocks of the model")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of a batch of four rows")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    shape = Shape(given.hidden, given.hidden * 8 // 3 // 32 * 32, given.layers, 512, length=given.tokens // 4)
    print(f"{shape}\n\n| setting | arm | bytes a token | beside PEFT |\n|---|---|---|---|")
    for name, (dtype, dropout) in SETTINGS.items():
        kept = {arm: saved(one, batch(shape)) for arm, one in arms(shape, dtype, dropout).items()}
        theirs = kept["PEFT"] - kept["frozen"]
        for arm in ("PEFT", "llmad"):
            more = kept[arm] - kept["frozen"]
            print(f"| {name} | {arm} | {more / given.tokens:,.0f} | {more / theirs:.3f} |")


def saved(one: Arm, ids: Tensor) -> int:
    """Bytes that are kept for the backward pass of a step."""
    known = {parameter.untyped_storage().data_ptr() for parameter in one.model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = one.forward(ids)
    found = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in known)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.count_nonzero() for parameter in one.trained)
    return found


if __name__ == "__main__":
    main()
