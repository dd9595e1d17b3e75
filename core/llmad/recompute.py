"""Recompute: activation checkpointing, which keeps a block's input and computes the block again for its gradients."""

from typing import Any

import torch
from torch import nn

from llmad import placement
from llmad.errors import ModelError


def enable(model: nn.Module) -> None:
    """Have the model's blocks computed again in the backward pass, and see that what is attached goes along with it.

    Args:
        model: a model of transformers, on any device; it is checkpointed while it is in training mode.

    Raises:
        ModelError: the model cannot, or an adapter on it refuses.
    """
    turn = getattr(model, "activation_checkpointing_enable", None) or getattr(model, _OLD + "enable", None)
    if turn is None or not getattr(model, "supports_gradient_checkpointing", True):
        raise ModelError(
            "no-checkpointing",
            f"gradient_checkpointing: {type(model).__name__} cannot compute its blocks again",
            "leave gradient_checkpointing out, and lower per_device_train_batch_size",
        )
    turn({"use_reentrant": False})
    # transformers has the embedding's output want a gradient, which nothing here needs and what is added to it in place
    # does not bear
    getattr(model, "disable_input_require_grads", lambda: None)()
    try:
        _try(model)
    except Exception:
        disable(model)
        raise


def disable(model: nn.Module) -> None:
    """Undo `enable`."""
    other: Any = model
    (getattr(other, "activation_checkpointing_disable", None) or getattr(other, _OLD + "disable"))()


_OLD = "gradient_checkpointing_"  # as transformers called it before


def _try(model: nn.Module) -> None:
    """Two tokens in training mode: what an adapter has against it is told before anything is trained."""
    training = [part for part in model.modules() if not part.training]
    ids = torch.zeros(1, 2, dtype=torch.long, device=placement.device(model))
    model.train()
    try:
        with torch.random.fork_rng(), torch.no_grad():
            model(input_ids=ids, use_cache=False)
    finally:
        for part in training:
            part.training = False
