"""Dice: a stream of random numbers of its own within torch's, so that what is trained together draws as if alone."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

_State = tuple[Tensor, Any]


class Dice:
    """Within `with dice:` torch draws from this stream, and goes on there the next time.

    Blocks of several dice may be nested; each goes on where it was left.
    """

    def __init__(self, seed: int) -> None:
        before = _state()
        torch.manual_seed(seed)
        self._left: _State = _state()
        _restore(before)

    def __enter__(self) -> "Dice":
        _outer.append(_outer[-1] if self is _outer[-1] else _switch(_outer[-1], self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _outer.pop()
        if self is not _outer[-1]:
            _switch(self, _outer[-1])


@contextmanager
def rolling(dice: Mapping[str, Dice]) -> Iterator[None]:
    """Within the block these are the dice of adapters by their names."""
    global _owned
    before, _owned = _owned, dice
    try:
        yield
    finally:
        _owned = before


def dice_of(name: str) -> AbstractContextManager[Any]:
    """What an adapter draws from: its own dice, or the stream that goes on."""
    return _owned.get(name, _ONE_STREAM)


_owned: Mapping[str, Dice] = {}  # no context variable: backward passes draw again in threads of their own
_ONE_STREAM = nullcontext()


def _switch(before: "Dice", after: "Dice") -> "Dice":
    before._left = _state()
    _restore(after._left)
    return after


def _state() -> _State:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None


def _restore(state: _State) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])


class _Main(Dice):
    """The stream outside of all blocks, which everything else draws from."""

    def __init__(self) -> None:
        self._left = _state()


_outer: list[Dice] = [_Main()]  # who draws now, last; below it, who goes on afterwards
