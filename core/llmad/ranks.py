"""Ranks: this process's place among those that a launcher started to train one adapter together.

Every process holds the whole base and computes its share of each step's batches; gradients are summed, and all of them
take the same step. The first one, `main`, alone chooses the run directory, writes and prints. None waits for one that
is gone: a connection that closes is an error, and what ended the first one that failed is noted for the others.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from hashlib import sha256
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from llmad.errors import LlmadError, RankError
from llmad.launch import give_way
from llmad.stopping import Stopped

Value = TypeVar("Value")

_FAILURE = "llmad/failure"  # in the launcher's store: what ended the first process that failed
_DONE, _OVER = "llmad/done", "llmad/over"  # how many need nobody any more, and that all are so far
_PATIENCE = timedelta(seconds=30)


@dataclass(frozen=True)
class Ranks:
    """A process's place: that of a process alone, if nothing else is said.

    Attributes:
        number: counted from 0.
        count: how many there are.
        group: to tell one another a few bytes by; it lives in main memory.
        store: notes that outlive the group.
    """

    number: int = 0
    count: int = 1
    group: Any = None
    store: Any = None

    @property
    def main(self) -> bool:
        """Whether it is the one that writes."""
        return self.number == 0

    def share(self, batches: Sequence[Value]) -> Sequence[Value]:
        """Which of a step's batches are this process's: every `count`-th one. May be none."""
        return batches[self.number :: self.count]

    def seed(self, seed: int) -> int:
        """Of this process's dropout in a step: the main one draws what a process alone would."""
        return seed if self.main else int(sha256(f"{seed}/{self.number}".encode()).hexdigest()[:15], 16)

    def sum(self, loss: Tensor | float, parameters: Sequence[nn.Parameter]) -> Tensor | float:
        """Sum a loss and gradients over all processes, without waiting for a device.

        A parameter that has a gradient anywhere has one everywhere then, and one that has none anywhere still has none.

        Args:
            loss: a scalar.
            parameters: whose gradients are replaced by their sums, bit for bit the same in every process.

        Returns:
            The loss's sum.

        Raises:
            RankError: another process is gone.
        """
        if self.count == 1:
            return loss
        where = parameters[0].device
        there = torch.tensor([own.grad is not None for own in parameters], dtype=torch.int32)
        with answering(self):  # on the host first: some accelerators' exchanges never end when a process is gone
            distributed.all_reduce(there, group=self.group)
        grads = [torch.zeros_like(own) if own.grad is None else own.grad for own in parameters]
        parts = [torch.as_tensor(loss, dtype=torch.float32, device=where)[None], *map(torch.ravel, grads)]
        widest = reduce(torch.promote_types, [part.dtype for part in parts])
        flat = torch.cat([part.to(widest) for part in parts])
        with answering(self):
            distributed.all_reduce(flat)
        total, *sums = torch.split(flat, [len(part) for part in parts])
        for own, count, grad in zip(parameters, there.tolist(), sums, strict=True):
            own.grad = grad.view_as(own).to(own.dtype) if count else None
        return total[0]

    def agree(self, number: int) -> int:
        """The largest of the numbers that the processes bring.

        Raises:
            RankError: another process is gone.
        """
        if self.count == 1:
            return number
        told = torch.tensor([number])
        with answering(self):
            distributed.all_reduce(told, distributed.ReduceOp.MAX, group=self.group)
        return int(told)

    def from_main(self, make: Callable[[], Value]) -> Value:
        """What the main process makes, in all of them; the others wait for it.

        Raises:
            RankError: another process is gone.
        """
        if self.count == 1:
            return make()
        told: list[Any] = [make() if self.main else None]
        with answering(self):
            distributed.broadcast_object_list(told, src=0, group=self.group)
        made: Value = told[0]
        return made

    def check_same(self, tensors: Sequence[Tensor]) -> None:
        """Refuse to go on where a process has other tensors than the others.

        Raises:
            RankError: they differ, or another process is gone.
        """
        if self.count == 1:
            return
        found: list[Any] = [None] * self.count
        with answering(self):
            distributed.all_gather_object(found, _sum(tensors), group=self.group)
        others = [number for number, one in enumerate(found) if one != found[0]]
        if others:
            reason = f"the adapter of process {others[0]} is not that of process 0"
            raise RankError("ranks-differ", reason, "use machines, devices and libraries that are alike")

    def wait_for_main(self) -> None:
        """Return when the main process has left: a launcher ends all as soon as one ends, whatever it still writes."""
        with suppress(RuntimeError):
            distributed.broadcast_object_list([None], src=0, group=self.group)
        give_way()

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that the processes come through together; after it they are parted.

        Raises:
            SystemExit: with the exit code of an error that another process tells already.
        """
        try:
            yield
        except BaseException as error:
            first = _first(error)
            if self.count > 1 and self._told(first):
                give_way()
                raise SystemExit(_exit_code(first)) from None
            if first is error:
                raise
            raise first from None
        else:
            self.part()
        finally:
            self._close(self.group)

    def part(self) -> None:
        """Be done with one another: from here on no process needs another one, however long each goes on.

        They close what connects them when all have come here, so that none cuts off the last words of another.
        """
        if self.count > 1 and distributed.is_initialized():
            with _unless_lost():
                if self.store.add(_DONE, 1) == self.count:
                    self.store.set(_OVER, "")
                self.store.wait([_OVER], _PATIENCE)
            self._close(None)

    def failure(self) -> str:
        """What ended the first process that failed; empty where none has said so."""
        with _unless_lost():
            if self.store is not None and self.store.check([_FAILURE]):
                return str(json.loads(self.store.get(_FAILURE))["said"])
        return ""

    def _told(self, error: BaseException) -> bool:
        """Note an error for the others; whether one of them has noted it before, or what led to it."""
        code = error.code if isinstance(error, LlmadError) else type(error).__name__
        said = " ".join(f"{code}: {error}".split())
        with _unless_lost():
            mine = json.dumps({"process": self.number, "said": said})
            first = json.loads(self.store.compare_set(_FAILURE, "", mine))
            return bool(first["process"] != self.number and (code == "rank-lost" or first["said"] == said))
        return False

    def _close(self, group: Any) -> None:
        """Close a connection, or all where None: whoever waits for this process learns it."""
        if self.count > 1 and distributed.is_initialized():
            with _unless_lost():
                distributed.destroy_process_group(group)


ALONE = Ranks()


@contextmanager
def answering(ranks: Ranks = ALONE) -> Iterator[None]:
    """A connection that fails inside the block is an error of the run.

    Raises:
        RankError: it has failed.
    """
    try:
        yield
    except torch.AcceleratorError:  # the device's own fault
        raise
    except RuntimeError as error:
        said = ranks.failure() or "it was killed, or cannot be reached"
        cure = "see what ended it, then go on with --resume DIR: what was saved is whole"
        raise RankError("rank-lost", f"another process of this run is gone: {said}", cure) from error


def _unless_lost() -> suppress:
    """What only helps may fail: the launcher, which keeps the store, may be gone too."""
    return suppress(RuntimeError, ValueError)


def _first(error: BaseException) -> BaseException:
    """An error, where a launcher's signal to the processes that are left came while it was being dealt with."""
    before = error.__context__
    return before if isinstance(error, Stopped) and isinstance(before, LlmadError) else error


def _exit_code(error: BaseException) -> Any:
    return error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", 1)


def _sum(tensors: Sequence[Tensor]) -> str:
    """Of the bits of tensors."""
    found = sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
