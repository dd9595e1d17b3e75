"""What to do when memory is short."""

import pytest
import torch

from llmad import memory
from llmad.errors import OutOfMemoryError
from llmad.memory import enough_memory, free


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


def test_what_is_free_is_no_more_than_a_container_leaves(tmp_path, monkeypatch):
    model = torch.nn.Linear(2, 2)
    whole = free(model)
    assert whole is not None
    assert whole > 0
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    assert free(model) == 100
    (tmp_path / "memory.max").write_text("max\n")
    assert free(model) > 1000


def test_a_device_that_does_not_tell_is_unknown():
    assert memory._free(torch.device("xpu")) is None
