"""The loss of the learnt tokens, whose logits alone are made, a chunk at a time.

Most tokens of a row are its question, which is not learnt, and a vocabulary is wide: logits are the largest tensors of
a training step. So the model runs with its head caught; the hidden states that predict a learnt token go to the head
afterwards. Where the head does not allow that, the model makes its logits itself: `plain_losses` says what is meant.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses

from llmad.chunked import Linear, chunked_losses
from llmad.data import IGNORED
from llmad.errors import DataError
from llmad.head import Behind, Caught, caught, frozen_head, plain_linear, read
from llmad.memory import is_shortage

_CALL: Mapping[str, Any] = {"use_cache": False}
_Look = tuple[object, ...]  # of a head: its class, which changes with the adapters there, and its shapes
_known: WeakKeyDictionary[nn.Module, tuple[_Look, Behind | None]] = WeakKeyDictionary()  # what was read, None: nothing


def answer_loss(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Summed cross entropy of the labelled tokens, in nats: a scalar in float32; see `token_losses`."""
    return token_losses(model, inputs, labels).sum()


def token_losses(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Cross entropy of every labelled token, row after row, in nats: (labelled,) in float32.

    Args:
        model: a causal language model, its base frozen.
        inputs: arguments of its forward by name: `input_ids` (rows, length) and what else it wants.
        labels: (rows, length) of long, `IGNORED` where a token is not learnt. The label at a position is predicted
            from the one before, so the first is never learnt. Rows may be padded, or packed into one. Labels in main
            memory spare a wait for the device.

    Raises:
        DataError: no token is labelled.
    """
    learnt = labels[:, 1:] != IGNORED
    if not learnt.any():
        raise DataError("nothing-learnt", f"none of the {labels.numel()} tokens is labelled", "label the answers")
    head = frozen_head(model)
    if head is None:
        return plain_losses(model, inputs, labels)
    look, behind = _known.get(model, ((), None))
    first = look != _look(head)
    if behind is None and not first:
        return plain_losses(model, inputs, labels)
    roll_back = _dice(_device(inputs))
    with caught(head, None if first or behind is None else behind.outputs) as catch:
        found = _logits(model, inputs, catch)
    if first:
        behind = read(found, catch.answer) if catch.calls == 1 else None
        _known[model] = _look(head), behind
    if found is not None and behind is not None and _fits(catch, labels):
        return _losses(head, catch, labels, behind)
    del found, catch
    roll_back()  # the same dropout as if the model had run once
    return plain_losses(model, inputs, labels)


def plain_losses(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """The same from the model's own logits: those of positions that some row learns from, where its forward can."""
    targets = labels[:, 1:]
    positions = (targets != IGNORED).any(0).nonzero().flatten()
    here = positions.to(_device(inputs))
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(**{**_CALL, **inputs}, logits_to_keep=here).logits
    else:
        logits = model(**{**_CALL, **inputs}).logits[:, here]
    wanted = targets[:, positions].flatten()
    learnt = (wanted != IGNORED).nonzero().flatten()
    own = logits.flatten(0, 1).index_select(0, learnt.to(logits.device))
    return F.cross_entropy(own.float(), wanted[learnt].to(logits.device), reduction="none")


def _device(inputs: Mapping[str, Tensor]) -> torch.device:
    return next(iter(inputs.values())).device


def _logits(model: nn.Module, inputs: Mapping[str, Tensor], catch: Caught) -> Tensor | None:
    """What the model makes of the head's answer; None where it stumbles over that."""
    try:
        found: Tensor | None = getattr(model(**{**_CALL, **inputs}), "logits", None)
    except Exception as error:
        if is_shortage(error) or not catch.calls:  # it is something else that it stumbles over
            raise
        return None
    return found


def _look(head: nn.Module) -> _Look:
    return type(head), *(value.shape for value in head.parameters())


def _fits(catch: Caught, labels: Tensor) -> bool:
    """Whether the head was called once, with a hidden state for each token."""
    return catch.calls == 1 and catch.hidden is not None and catch.hidden.shape[:2] == labels.shape


def _losses(head: nn.Module, catch: Caught, labels: Tensor, behind: Behind) -> Tensor:
    """The loss behind the head, of what came to it."""
    assert catch.hidden is not None
    rows, positions = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    targets = labels[rows, positions + 1].to(catch.hidden.device)
    picked = (rows * labels.shape[1] + positions).to(catch.hidden.device)
    hidden = catch.hidden.flatten(0, 1).index_select(0, picked)
    if plain_linear(head) and head.weight.dtype == hidden.dtype and not _autocast(hidden):
        return chunked_losses(hidden, targets, Linear(head.weight, head.bias), behind)
    return chunked_losses(hidden, targets, catch.call, behind)


def _autocast(hidden: Tensor) -> bool:
    return torch.is_autocast_enabled(hidden.device.type)


def _dice(where: torch.device) -> Callable[[], None]:
    """Remember the state of the random numbers, and give what brings it back."""
    side: Any = torch.get_device_module(where)
    name = next((name for name in ("rng_state_all", "rng_state") if hasattr(side, f"get_{name}")), None)
    cpu, other = torch.get_rng_state(), getattr(side, f"get_{name}")() if name else None

    def back() -> None:
        torch.set_rng_state(cpu)
        if name:
            getattr(side, f"set_{name}")(other)

    return back
