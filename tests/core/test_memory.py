"""What to do when memory is short."""

import pytest
import torch

from llmad.errors import OutOfMemoryError
from llmad.memory import enough_memory


def test_a_shortage_is_told_in_one_line_with_its_cure():
    with pytest.raises(OutOfMemoryError) as error, enough_memory("ask for less"):
        raise torch.OutOfMemoryError("out of\nmemory")
    assert (str(error.value), error.value.hint, error.value.exit_code) == ("out of memory", "ask for less", 8)


def test_a_function_can_be_watched_more_than_once():
    @enough_memory("ask for less")
    def fail():
        raise torch.OutOfMemoryError

    for _ in range(2):
        with pytest.raises(OutOfMemoryError):
            fail()


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="other"), enough_memory(""):
        raise RuntimeError("other")


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
])  # fmt: skip
def test_the_machines_own_memory_may_be_short_too(error):
    with pytest.raises(OutOfMemoryError, match="memory") as caught, enough_memory("ask for less"):
        raise error
    assert caught.value.hint == "ask for less"


def test_torch_says_so_itself():
    with pytest.raises(OutOfMemoryError, match="memory"), enough_memory(""):
        torch.empty(1 << 50, dtype=torch.uint8)
