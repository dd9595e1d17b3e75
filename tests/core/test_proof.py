"""What was written is read back and compared, bit for bit."""

import pytest
import torch
from safetensors.torch import save_file

from llmad.errors import StorageError
from llmad.proof import check_tensors, same


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        (torch.tensor([1.0]), torch.tensor([1.0]), True),
        (torch.tensor([torch.nan]), torch.tensor([torch.nan]), True),
        (torch.tensor([0.0]), torch.tensor([-0.0]), False),
        (torch.tensor([1.0]), torch.tensor(1.0), False),
        (torch.tensor([1.0]), torch.tensor([1.0]).half(), False),
        (torch.zeros(0), torch.zeros(0), True),
        (torch.eye(3).T, torch.eye(3), True),
    ],
)
def test_bits_shapes_and_dtypes_are_compared(one, other, wanted):
    assert same(one, other) is wanted


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda held: held | {"a": held["a"] + 1}, "a"),
        (lambda held: {"b": held["b"]}, "a"),
        (lambda held: held | {"c": torch.zeros(1)}, "c"),
    ],
)
def test_the_tensor_that_differs_is_named(tmp_path, change, named):
    held = {"a": torch.zeros(2), "b": torch.ones(2)}
    save_file(change(held), tmp_path / "x")
    with pytest.raises(StorageError, match=f"does not hold what was written: {named}$") as error:
        check_tensors(tmp_path / "x", held)
    assert error.value.hint


@pytest.mark.parametrize("content", [None, b"", b"x" * 20])
def test_a_file_that_cannot_be_read_is_not_what_was_written(tmp_path, content):
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(StorageError, match="does not hold what was written"):
        check_tensors(tmp_path / "x", {})
