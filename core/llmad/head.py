"""The head: catch what comes to a model's output head, and read what the model makes of the head's answer.

Models do more than one thing to the logits behind the head: they scale them, bound them by a tanh, cut them to the
vocabulary. Nobody has to say what a model does: for one call the head answers with a ruler, numbers that are known,
and what the model's own code makes of these tells which function it is, or that it is another one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from llmad import placement
from llmad.host import Host, acting_here

_SIZES = (2.0**-24, 2.0**2, 2.0**6, 2.0**10, 2.0**40)  # a tanh leaves the first as it is, and the last at its limit
_CLOSE = 1e-5  # relative; float32 has 6e-8
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Behind:
    """What a model makes of its head's logits z: `limit * tanh(scale * z / limit)`, the first `width` of each token.

    Attributes:
        outputs: how many logits the head gives for a token.
        width: how many of them the model returns.
        scale: what it multiplies them by.
        limit: what they stay below; None where nothing bounds them.
    """

    outputs: int
    width: int
    scale: float = 1.0
    limit: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """The model's logits (..., width) in float32, of the head's (..., outputs)."""
        scaled = logits[..., : self.width].float() * self.scale
        return scaled if self.limit is None else torch.tanh(scaled / self.limit) * self.limit


class Caught:
    """The head's calls during a forward of the model; the head itself is not asked.

    Attributes:
        call: the head's own forward.
        hidden: what came to the head, (rows, length, width); None before it was called.
        calls: how often it was called.
        answer: what it gave back, (1, 5, outputs): the ruler.
    """

    def __init__(self, call: Callable[..., Any], outputs: int | None) -> None:
        self.call = call
        self.hidden: Tensor | None = None
        self.calls = 0
        self.answer: Tensor | None = None
        self._outputs = outputs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Stand in for the head's forward; what is no call with hidden states alone is answered by the head."""
        self.calls += 1
        hidden = args[0] if len(args) == 1 and not kwargs else None
        if self.calls > 1 or not isinstance(hidden, Tensor) or hidden.dim() != 3 or not hidden.is_floating_point():
            self.hidden = None
            return self.call(*args, **kwargs)
        self.hidden = hidden
        self.answer = ruler(self._outputs or self._count(hidden), hidden.device)
        return self.answer.clone()

    @torch.no_grad()
    def _count(self, hidden: Tensor) -> int:
        """How many logits the head gives for a token."""
        return int(self.call(hidden[:1, :1]).shape[-1])


@contextmanager
def caught(head: nn.Module, outputs: int | None = None) -> Iterator[Caught]:
    """Within the block the head's forward is caught; afterwards it is as it was, whatever happens.

    Hooks stay in force, PyTorch's and accelerate's, which calls the forward that it found by a name of its own.
    """
    name = "_old_forward" if "_old_forward" in vars(head) else "forward"
    before = vars(head).get(name, _ABSENT)
    catch = Caught(getattr(head, name), outputs)
    vars(head)[name] = catch
    try:
        yield catch
    finally:
        vars(head).pop(name)
        if before is not _ABSENT:
            vars(head)[name] = before


def frozen_head(model: nn.Module) -> nn.Module | None:
    """The model's output head, where it can be caught: nothing in it is trained, acts, or is kept elsewhere."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if not isinstance(head, nn.Module) or placement.offloaded(head):
        return None
    hosts = isinstance(head, Host)
    own = (value for name, value in head.named_parameters() if not (hosts and name.startswith("adapters.")))
    if any(value.requires_grad for value in own) or (hosts and any(acting_here(head))):
        return None
    return head


def plain_linear(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether the head is `hidden @ weight.T + bias` and nothing else, an adapter that does not act set aside."""
    own = next(cls for cls in type(head).__mro__ if not issubclass(cls, Host))
    patched = "forward" in vars(head) and "_old_forward" not in vars(head)
    if patched or getattr(own, "forward", None) is not nn.Linear.forward:
        return False
    weight = head.weight
    return type(weight) is nn.Parameter and weight.dtype in (torch.float32, torch.bfloat16, torch.float16)


def ruler(outputs: int, device: torch.device) -> Tensor:
    """Known numbers, (1, 5, outputs): from -1 to 1 across the vocabulary, tiny, of middling sizes and huge."""
    across = torch.linspace(-1, 1, outputs, device=device)
    return torch.stack([across * size for size in _SIZES])[None]


def read(found: object, answer: Tensor | None) -> Behind | None:
    """What the model makes of its head's logits, from what it made of the ruler; None where it is something else."""
    if answer is None or not isinstance(found, Tensor) or found.dim() != 3 or found.shape[:2] != answer.shape[:2]:
        return None
    outputs, width = answer.shape[-1], found.shape[-1]
    if not 0 < width <= outputs:
        return None
    found = found.to(answer.device)
    scale = float(found[0, 0, 0] / answer[0, 0, 0])
    end = abs(float(found[0, -1, 0]))
    bounded = end < 0.999 * abs(scale) * _SIZES[-1]
    behind = Behind(outputs, width, scale, end if bounded else None)
    agrees = found.dtype == answer.dtype and torch.allclose(found, behind(answer), rtol=_CLOSE, atol=1e-9)
    return behind if agrees and scale and isfinite(scale) else None
