"""Memory: what to do when there is too little of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmad.errors import OutOfMemoryError

_ON_CPU = ("not enough memory", "can't allocate memory", "std::bad_alloc")  # words of torch's allocators


@contextmanager
def enough_memory(cure: str) -> Iterator[None]:
    """Say what to do when memory is short inside the block, or the decorated function: the accelerator's or the CPU's.

    Raises:
        OutOfMemoryError: with `cure` as its hint.
    """
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        said = " ".join(str(error).split())[:300] or "there is not enough memory"
        raise OutOfMemoryError("out-of-memory", said, cure) from None


def is_shortage(error: Exception) -> bool:
    """Whether an error says that memory is short; torch has a kind of its own for the accelerators' alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ON_CPU)
