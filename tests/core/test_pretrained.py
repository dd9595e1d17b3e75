"""Backbones with their weights and tokenizer, or as a skeleton."""

import shutil

import pytest
import torch

from llmad import pretrained
from llmad.errors import ModelError, UsageError
from llmad.fingerprint import difference, fingerprint
from llmad.quantization import owners, quantization


def test_a_folder_is_loaded_in_evaluation_mode(folder):
    found = pretrained.load(folder)
    assert found.name == folder
    assert not found.model.training
    assert found.tokenizer.eos_token == "<eos>"


@pytest.mark.parametrize(("dtype", "wanted"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_dtype_is_the_one_asked_for(folder, dtype, wanted):
    assert pretrained.load(folder, dtype).model.dtype == wanted


def test_a_shape_without_weights_is_refused():
    with pytest.raises(UsageError, match="known by its shape only"):
        pretrained.load("llama-7b")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_broken_file_is_refused_in_one_line(folder, tmp_path, name):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / name).write_text("{")
    with pytest.raises(ModelError) as error:
        pretrained.load(str(broken))
    assert str(error.value).startswith(f"{broken}: ")
    assert "\n" not in str(error.value)


def test_weights_that_lack_a_tensor_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(folder, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"its weights lack model.norm.weight"):
        pretrained.load(str(broken))


@pytest.mark.parametrize("name", ["llama-7b", "bloom-7b1"])
def test_a_skeleton_has_shapes_and_no_weights(name):
    model = pretrained.skeleton(name)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) > 6e9


def test_a_skeleton_of_a_folder_needs_no_weights(folder, tmp_path):
    shutil.copy(f"{folder}/config.json", tmp_path)
    assert pretrained.skeleton(str(tmp_path)).config.num_hidden_layers == 2


def test_a_skeleton_of_an_unknown_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nothing-such"}')
    with pytest.raises(ModelError, match="nothing-such"):
        pretrained.skeleton(str(tmp_path))


@pytest.mark.parametrize("name", ["folder", "abacus"])
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("quantizer", ["int8", "nf4"])
def test_a_base_is_quantised_as_it_is_loaded(folder, quantizer, dtype, name):
    model = pretrained.load(folder if name == "folder" else name, dtype, quantize=quantizer).model
    assert str(quantization(model)).startswith(quantizer)
    assert len(owners(model)) == 7 * len(model.model.layers)
    assert model.dtype == (torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.fixture(params=["int8", "nf4[double_quant=false]"])
def stored(request, folder, tmp_path):
    """A folder that is stored quantised, and how."""
    found = pretrained.load(folder, quantize=request.param)
    found.model.save_pretrained(tmp_path / "stored")
    found.tokenizer.save_pretrained(tmp_path / "stored")
    return str(tmp_path / "stored"), found.model


def test_a_folder_that_is_stored_quantised_is_a_base_like_any_other(stored, logits, ids):
    path, model = stored
    found = pretrained.load(path).model
    assert pretrained.stored_quantization(path) == quantization(found) == quantization(model)
    assert owners(found).keys() == owners(model).keys()
    assert torch.equal(logits(found), logits(model))
    assert difference(fingerprint(found), fingerprint(model)) == ""


def test_what_is_stored_quantised_is_not_quantised_once_more(stored):
    with pytest.raises(UsageError, match=r"is stored quantised as .*, and cannot be quantised as nf4") as caught:
        pretrained.load(stored[0], quantize="nf4")
    assert caught.value.hint == "leave quantize out"


def test_a_skeleton_of_what_is_stored_quantised_is_plain(stored, folder):
    plain = pretrained.skeleton(folder)
    names = [(name, parameter.shape) for name, parameter in plain.named_parameters()]
    assert [(name, parameter.shape) for name, parameter in pretrained.skeleton(stored[0]).named_parameters()] == names


NF4 = "nf4[double_quant=true,compute_dtype=bfloat16]"


@pytest.mark.parametrize(("recorded", "given", "wanted"), [
    ([None], None, None), ([NF4], None, NF4), ([NF4, NF4], None, NF4), ([NF4], "none", None), ([NF4], "int8", "int8"),
    ([None, NF4], "none", None),
])  # fmt: skip
def test_the_base_of_adapters_is_quantised_as_it_was(folder, recorded, given, wanted):
    assert pretrained.common_quantization(folder, [{"quantization": how} for how in recorded], given) == wanted


def test_adapters_of_differently_quantised_bases_have_none_in_common(folder):
    with pytest.raises(UsageError, match="quantised in several ways: int8 and none"):
        pretrained.common_quantization(folder, [{"quantization": "int8"}, {}], None)


def test_what_is_stored_quantised_stays_so_whatever_is_recorded(stored):
    assert pretrained.common_quantization(stored[0], [{"quantization": None}], None) is None
