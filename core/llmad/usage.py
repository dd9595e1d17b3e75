"""Usage: the memory that the tensors of a training step take, counted as they come and go.

The step is the real one: the longest batch, its forward pass, its loss and its gradients. What makes it cheap depends
on the model:

    measured       a small model does it for real
    rehearsed      a large one does it without values: every weight is one in name, and so is all that is computed of
                   it; what does not depend on a weight (ids, positions, masks) has its values
    extrapolated   where that cannot be, as of experts, which ask for values: one row and two rows for real, and a
                   straight line on from there

Kernels have room of their own that is not seen here, and allocators give more than they are asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any, Literal
from weakref import ref

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from llmad import placement
from llmad.batching import Batching
from llmad.data import Batch, Example
from llmad.errors import LlmadError
from llmad.loss import token_losses
from llmad.memory import given_back, is_shortage
from llmad.quantization import owners

Way = Literal["measured", "rehearsed", "extrapolated"]


class NotCountedError(Exception):
    """A model has failed in a step that was tried out, as it may where values are missing; the cause says in what."""

    @property
    def shortage(self) -> bool:
        """Whether it was for want of memory."""
        return isinstance(self.__cause__, Exception) and is_shortage(self.__cause__)


_QUICK = 3e9  # weights times tokens; what a step of so many takes is a fraction of a second


@dataclass(frozen=True)
class Usage:
    """Bytes of a step, beyond those of the model.

    Attributes:
        kept: what the forward pass leaves for the backward pass.
        head: the most that there is at once from the head's call to the loss, beyond what was there at that call.
        peak: the most that there is at once.
        way: how that is known.
        small_kept: what of `kept` lies in small blocks, which the C library keeps when they are freed.
        small_peak: the most that there is at once in such blocks.
    """

    kept: int
    head: int
    peak: int
    way: Way
    small_kept: int = 0
    small_peak: int = 0


def usage(model: nn.Module, how: Batching, examples: Sequence[Example]) -> Usage:
    """What a step of one forward pass takes; the model, its gradients and torch's random numbers stay as they are.

    Args:
        model: the model with its adapter attached.
        how: the rows stand in the forward pass.
        examples: the rows.

    Raises:
        NotCountedError: the model fails in the step.
        LlmadError: the step itself would.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    if weights * sum(len(example.ids) for example in examples) <= _QUICK:
        return measured(model, how, examples)
    if owners(model) or placement.offloaded(model):  # their modules move and change weights on their own
        return extrapolated(model, how, examples)
    try:
        return rehearsed(model, how, examples)
    except NotCountedError:  # whatever a model or torch raises where values are missing
        return extrapolated(model, how, examples)


def measured(model: nn.Module, how: Batching, examples: Sequence[Example]) -> Usage:
    """What the step takes, by doing it."""
    return _counted(model, how, examples, Counting(model), "measured")


def rehearsed(model: nn.Module, how: Batching, examples: Sequence[Example]) -> Usage:
    """What the step takes, by doing it without values.

    Raises:
        NotCountedError: the model asks for one.
    """
    with _left_alone(model):
        return _counted(model, how, examples, Valueless(model), "rehearsed")


def extrapolated(model: nn.Module, how: Batching, examples: Sequence[Example]) -> Usage:
    """What the step takes, from what the longest row takes once and twice."""
    longest = max(examples, key=lambda example: len(example.ids))
    one, two = (_counted(model, how, [longest] * count, Counting(model), "extrapolated") for count in (1, 2))
    more = len(examples) - 1
    sizes = ("kept", "head", "peak", "small_kept", "small_peak")
    found = {name: getattr(one, name) + more * (getattr(two, name) - getattr(one, name)) for name in sizes}
    return Usage(**found, way="extrapolated")


@dataclass
class Tally:
    """Bytes that are there, and the most that there were."""

    now: int = 0
    peak: int = 0

    def add(self, size: int) -> None:
        """Bytes that come, or that go where there are fewer than none."""
        self.now += size
        self.peak = max(self.peak, self.now)


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts the bytes of the tensors that are made within the block, each storage once, until they are gone.

    Attributes:
        every: of all; the most since the last `start`.
        small: of those in small blocks.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.every, self.small = Tally(), Tally()
        self._edge = given_back()
        self._known = {_place(parameter) for parameter in model.parameters()}
        self._there: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = self._make(func, args, kwargs or {})
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, Tensor):
                self._note(one)
        return made

    def start(self) -> None:
        """Look for the peak anew."""
        self.every.peak = self.every.now

    def _make(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not _written_in_python(func, args, kwargs):
            return func(*args, **kwargs)
        with self:  # what it makes for itself counts too
            return func.redispatch(_ON_CPU, *args, **kwargs)

    def _note(self, tensor: Tensor) -> None:
        place = _place(tensor)
        if place in self._known or place in self._there:
            return
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        self._there[place] = ref(storage, lambda _: self._forget(place, size))
        self._tally(size, 1)

    def _forget(self, place: int, size: int) -> None:
        self._there.pop(place, None)
        self._tally(size, -1)

    def _tally(self, size: int, sign: int) -> None:
        self.every.add(sign * size)
        if size < self._edge:
            self.small.add(sign * size)


_ON_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


def _written_in_python(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation may be: one that is not torch's own, as quantizers have; a GPU's are kernels."""
    if not isinstance(func, OpOverload) or func.namespace in ("aten", "prim", "prims"):
        return False
    return all(one.device.type == "cpu" for one in _tensors((*args, *kwargs.values())))


class Valueless(Counting):  # type: ignore[no-untyped-call]
    """The same where weights, and what is computed of them, have no values."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._names = FakeTensorMode(allow_non_fake_inputs=True)
        self._own = frozenset(self._known)
        self._stand_ins = [self._names.from_tensor(parameter) for parameter in model.parameters()]  # kept alive
        self._known |= {_place(one) for one in self._stand_ins}

    def _make(self, func: Any, args: Any, kwargs: Any) -> Any:
        if any(type(one) is FakeTensor or _place(one) in self._own for one in _tensors((*args, *kwargs.values()))):
            if func.overloadpacket.__name__ in _INDEXED:
                args = (args[0], _by_number(args[1]), *args[2:])
            with self._names:
                return func(*args, **kwargs)
        return func(*args, **kwargs)


_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}


def _by_number(indices: Any) -> list[Any]:
    """Places by their numbers: how many a mask has cannot be known without its values, which go with the weights'."""
    masks = [isinstance(one, Tensor) and one.dtype == torch.bool and type(one) is Tensor for one in indices]
    pairs = zip(indices, masks, strict=True)
    return [part for one, mask in pairs for part in (one.nonzero().unbind(1) if mask else (one,))]


def _place(tensor: Tensor) -> int:
    place: int = tensor.untyped_storage()._cdata
    return place


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _counted(model: nn.Module, how: Batching, examples: Sequence[Example], counting: Counting, way: Way) -> Usage:
    batch = how.batch(examples).to(placement.device(model))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with _tried(), _training(model), torch.random.fork_rng(), torch.enable_grad(), counting, how.within(model, batch):
        kept, head, peak, loss = _forward(model, batch, counting)
        small_kept = counting.small.now
        torch.autograd.grad(loss, trained, allow_unused=True)
    return Usage(kept, head, max(peak, counting.every.peak), way, small_kept, counting.small.peak)


@contextmanager
def _tried() -> Iterator[None]:
    """Tell what a model raises within the block from what llmad does, which must not hide behind it."""
    try:
        yield
    except LlmadError:
        raise
    except Exception as error:
        if _own(error):
            raise
        raise NotCountedError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _own(error: Exception) -> bool:
    """Whether a line of llmad has raised an error, and not a model, a method or torch.

    What an operation of torch raises comes by way of `Counting._make`.
    """
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "llmad" and frame.f_code.co_name != "_make"


def _forward(model: nn.Module, batch: Batch, counting: Counting) -> tuple[int, int, int, Tensor]:
    """Bytes kept, of the head, and the most until now; and the loss."""
    every = counting.every
    begun: list[tuple[int, int]] = []  # at each call of the head: bytes that are there, the most until then

    def begin() -> None:
        begun.append((every.now, every.peak))
        counting.start()

    with _before_head(model, begin):
        loss = token_losses(model, batch.inputs, batch.labels).sum()
    there, before = begun[-1] if begun else (every.now, every.peak)
    peak, head = max(before, every.peak), max(0, every.peak - there) if begun else 0
    kept = every.now
    counting.start()
    return kept, head, peak, loss


def _before_head(model: nn.Module, begin: Callable[[], None]) -> AbstractContextManager[Any]:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if not isinstance(head, nn.Module):
        return nullcontext()
    return _removed(head.register_forward_pre_hook(lambda *_: begin()))


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Training mode within the block."""
    resting = [part for part in model.modules() if not part.training]
    model.train()
    try:
        yield
    finally:
        for part in resting:
            part.training = False


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """Take back what a forward pass notes on its modules within the block: what has no value must not stay."""
    before = [(part, dict(vars(part)), dict(part._buffers)) for part in model.modules()]
    try:
        yield
    finally:
        for part, own, buffers in before:
            vars(part).clear()
            vars(part).update(own)
            part._buffers.clear()
            part._buffers.update(buffers)
