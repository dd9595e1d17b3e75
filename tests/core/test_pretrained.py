"""Backbones with their weights and tokenizer, or as a skeleton."""

import shutil

import pytest
import torch

from llmad import pretrained
from llmad.errors import ModelError, UsageError


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
