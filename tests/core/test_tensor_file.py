"""The tensors of an adapter: crafted headers are refused before anything is allocated."""

import json

import pytest
import torch
from safetensors.torch import save_file

from llmad import tensor_file
from llmad.errors import ModelError

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "BF16", "shape": [2, 1], "data_offsets": [8, 12]}
VALID = {"a": A, "b": B, "__metadata__": {"format": "pt"}}
HUGE = 1 << 42


@pytest.fixture
def write(tmp_path):
    """Write a file with a header, given as an object or as bytes, and so many bytes of values."""

    def write(header, values=12, length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / "adapter_model.safetensors"
        path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(values))
        return path

    return write


def test_the_header_is_told_without_values(write):
    found = tensor_file.outlines(write(VALID))
    assert {name: (tensor.shape, tensor.dtype, tensor.device.type) for name, tensor in found.items()} == {
        "a": ((2,), torch.float32, "meta"), "b": ((2, 1), torch.bfloat16, "meta")
    }  # fmt: skip


@pytest.mark.parametrize("tensors", [{}, {"a": torch.zeros(0, 3)}, {"b": torch.tensor(1), "a": torch.ones(2, 2)}])
def test_what_the_library_writes_is_read(tmp_path, tensors):
    save_file(tensors, tmp_path / "file")
    assert tensor_file.outlines(tmp_path / "file").keys() == tensors.keys()
    for name, tensor in tensor_file.read(tmp_path / "file").items():
        assert torch.equal(tensor, tensors[name])


@pytest.mark.parametrize(("header", "words"), [
    ({**VALID, "b": {**B, "data_offsets": [0, 4]}}, "overlap or leave gaps"),
    ({**VALID, "b": {**B, "data_offsets": [4, 12]}}, "overlap or leave gaps"),
    ({**VALID, "b": {**B, "data_offsets": [9, 13]}}, "overlap or leave gaps"),
    ({**VALID, "b": {**B, "data_offsets": [8, HUGE]}}, "overlap or leave gaps"),
    ({**VALID, "b": {**B, "data_offsets": [12, 8]}}, "overlap or leave gaps"),
    ({**VALID, "b": {**B, "data_offsets": [-4, 12]}}, "which cannot be"),
    ({**VALID, "b": {**B, "data_offsets": [8]}}, "which cannot be"),
    ({**VALID, "b": {**B, "data_offsets": [8, 12.0]}}, "which cannot be"),
    ({**VALID, "b": {**B, "data_offsets": "8"}}, "which cannot be"),
    ({**VALID, "b": {**B, "shape": [3, 1]}}, "4 bytes are no (3, 1) of BF16"),
    ({**VALID, "b": {**B, "shape": [HUGE, 1]}}, "4 bytes are no"),
    ({**VALID, "b": {**B, "shape": [HUGE, HUGE]}}, "which cannot be"),
    ({**VALID, "b": {**B, "shape": [-2, -1]}}, "which cannot be"),
    ({**VALID, "b": {**B, "shape": [True, 2]}}, "which cannot be"),
    ({**VALID, "b": {**B, "shape": 2}}, "which cannot be"),
    ({**VALID, "b": {**B, "shape": [1] * 17}}, "which cannot be"),
    ({**VALID, "b": {**B, "dtype": "F4"}}, "b has dtype 'F4'"),
    ({**VALID, "b": {**B, "dtype": ["F32"]}}, "b has dtype ['F32']"),
    ({**VALID, "b": {**B, "more": 1}}, "b has not dtype"),
    ({**VALID, "b": {"shape": [1]}}, "b has not dtype"),
    ({**VALID, "b": []}, "b has not dtype"),
    ({**VALID, "__metadata__": {"format": 1}}, "__metadata__ is no table of texts"),
    ({**VALID, "__metadata__": []}, "__metadata__ is no table of texts"),
    ({"a": A}, "overlap or leave gaps"),
    ({}, "overlap or leave gaps"),
    ([], "no JSON object"),
    (json.dumps(VALID).encode().replace(b'"b"', b'"a"'), "'a' is there twice"),
    (b"{" * 40, "header is broken"),
    (b"[" * 1000, "header is broken"),
    (b"\xff\xfe", "header is broken"),
    (b"", "header is broken"),
], ids=str)  # fmt: skip
def test_a_header_that_cannot_be_right_is_refused(write, header, words):
    path = write(header)
    with pytest.raises(ModelError) as caught:
        tensor_file.outlines(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.code == "broken-adapter"


@pytest.mark.parametrize(("length", "values", "words"), [
    (1 << 63, 12, "too few for its header"), (HUGE, 12, "too few for its header"),
    (20_000_000, 1 << 25, "claims a header"),
    (None, 11, "overlap or leave gaps"), (None, 13, "overlap or leave gaps"),
])  # fmt: skip
def test_lengths_that_do_not_agree_with_the_file_are_refused(write, length, values, words):
    with pytest.raises(ModelError, match=words):
        tensor_file.outlines(write(VALID, values, length))


@pytest.mark.parametrize("content", [b"", b"1234567", b"PK\x03\x04" * 9, b"\x80\x04" * 50])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelError, match="no safetensors file"):
        tensor_file.outlines(tmp_path / "file")
