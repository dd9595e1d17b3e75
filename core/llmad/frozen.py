"""Frozen: proof that training left the base as it was."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from llmad.errors import ModelError

Sums = Mapping[str, int]


def sums(model: nn.Module) -> Sums:
    """A sum over every bit of each parameter and stored buffer that is not trained; offloaded weights are left out.

    A sum is torch's `hash_tensor`, the exclusive or of all values: it does not see values that trade places.
    """
    held = model.state_dict(keep_vars=True).items()
    still = ((name, tensor) for name, tensor in held if isinstance(tensor, Tensor) and not tensor.requires_grad)
    return {name: _sum(tensor.detach()) for name, tensor in still if tensor.numel() and not tensor.is_meta}


def _sum(tensor: Tensor) -> int:
    return int(torch.hash_tensor(tensor).view(torch.int64))


def check(model: nn.Module, before: Sums) -> None:
    """Refuse a model whose frozen part is no longer what it was.

    Raises:
        ModelError: with the first parameter or buffer that changed.
    """
    now = sums(model)
    changed = [name for name in before if now.get(name) != before[name]]
    if changed:
        more = f" and {len(changed) - 1} others" if len(changed) > 1 else ""
        reason = f"{changed[0]}{more} of the frozen base changed during training"
        raise ModelError(
            "base-changed", reason, "the adapter is of no use without it; does a plugin write to the base?"
        )
