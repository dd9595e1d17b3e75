"""Memory: what to do when there is too little of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmad.errors import OutOfMemoryError


@contextmanager
def enough_memory(cure: str) -> Iterator[None]:
    """Say what to do when the accelerator's memory is short inside the block, or the decorated function.

    Raises:
        OutOfMemoryError: with `cure` as its hint.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError("out-of-memory", " ".join(str(error).split())[:300], cure) from None
