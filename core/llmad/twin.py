"""Twin: the architecture of a model without its weights, to see what a forward does before the model is touched.

`hollow` is where anything without weights is made.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def twin(model: nn.Module) -> Any:
    """The same architecture without weights; half precision, and expert by expert, as other products want more."""
    config = copy.deepcopy(cast(Any, model).config)
    kind = cast(Any, type(model))
    with hollow():
        there = kind(config).to(torch.bfloat16).eval()
    for part in (config, config.get_text_config(decoder=True)):
        with suppress(AttributeError, ValueError):
            part._experts_implementation = "eager"
    return there


@contextmanager
def hollow() -> Iterator[None]:
    """Within the block modules are made without weights, and nobody takes the time to initialise what has no values."""
    with torch.device("meta"), _Uninitialised():
        yield


class _Uninitialised(TorchFunctionMode):
    """Passes over torch's initialisers, all of which return the tensor that they are given."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def rehearsal(model: nn.Module) -> Iterator[nn.Module]:
    """A twin that can be called within the block; nothing there has a value, and no random number is drawn."""
    with torch.random.fork_rng(devices=[]):
        there = cast(nn.Module, twin(model).requires_grad_(False))
        with torch.device("meta"), Valueless(), torch.enable_grad():
            yield there


class Valueless(TorchFunctionMode):
    """Answers what a forward asks about values where there are none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = without_values(getattr(func, "__name__", ""), args)
        return func(*args, **(kwargs or {})) if answer is None else answer


def without_values(name: str, args: Any) -> Any:
    """What a question about values is answered where there are none; None where that was not the question."""
    if name == "item":
        return 0
    if name == "__bool__":
        return False
    if name == "tolist":
        return torch.zeros(args[0].shape, dtype=args[0].dtype, device="cpu").tolist()
    if name == "nonzero":
        return torch.empty(0, args[0].dim(), dtype=torch.long, device="meta")
    return None
