"""Filling: outlines are held to the method's shapes before memory is taken."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import llmad
from llmad import ModelError
from llmad.adapter_dir import state
from tests.core.test_adapter_dir import edit, refused, rewrite

METHODS = ["lora", "dora", "ia3", "series", "compacter", "invertible", "loreft", "prompt", "p-tuning", "prefix"]


@pytest.mark.parametrize("spec", METHODS)
def test_the_outlines_of_every_method_pass(tiny, tmp_path, spec):
    folder = llmad.save(llmad.attach(tiny("llama"), spec), tmp_path / "a")
    assert state(llmad.load(tiny("llama"), folder)).adapters


@pytest.mark.parametrize("spec", ["lora", "series", "prompt", "prefix", "p-tuning"])
def test_a_record_that_asks_for_terabytes_is_refused(tiny, tmp_path, snapshot, spec):
    folder = llmad.save(llmad.attach(tiny("llama"), spec), tmp_path / "a")
    options = dict(state(llmad.load(tiny("llama"), folder)).adapters["default"].spec.options())
    size = next(key for key in ("r", "bottleneck", "num_virtual_tokens") if key in options)
    rewrite(folder, "llmad.json", options={**options, size: 1 << 36})
    assert refused(tiny("llama"), folder, snapshot).exit_code == 4


@pytest.mark.parametrize(("dtype", "fits"), [
    (torch.float64, True), (torch.bfloat16, True), (torch.float16, True), (torch.int32, False), (torch.bool, False),
])  # fmt: skip
def test_a_whole_number_is_no_weight(tiny, tmp_path, snapshot, dtype, fits):
    folder = llmad.save(llmad.attach(tiny("llama"), "series"), tmp_path / "a")
    edit(folder, lambda tensors: tensors.update({key: tensor.to(dtype) for key, tensor in list(tensors.items())[:1]}))
    if fits:
        llmad.load(tiny("llama"), folder)
        return
    assert refused(tiny("llama"), folder, snapshot).code == "wrong-dtype"


def test_a_number_that_is_finite_only_in_the_file_is_refused(tiny, tmp_path, snapshot):
    folder = llmad.save(llmad.attach(tiny("llama"), "series"), tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({**tensors, name: torch.full_like(tensors[name], 1e300, dtype=torch.float64)}, path)
    assert refused(tiny("llama"), folder, snapshot).code == "not-finite"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_single_value_that_is_not_finite_is_refused(tiny, tmp_path, snapshot, dtype, value):
    def spoil(tensors):
        name, tensor = list(tensors.items())[-1]
        tensors[name] = tensor.to(dtype)
        tensors[name].view(-1)[-1] = value

    folder = llmad.save(llmad.attach(tiny("llama"), "lora"), tmp_path / "a")
    edit(folder, spoil)
    assert refused(tiny("llama"), folder, snapshot).code == "not-finite"


@pytest.mark.parametrize(("value", "code"), [(float("nan"), "not-finite"), (float("inf"), "not-finite"),
                                             (1.0, "extra-tensor")])  # fmt: skip
def test_a_value_in_a_row_that_is_no_roles_is_refused(tiny, tmp_path, snapshot, value, code):
    folder = llmad.save(llmad.attach(tiny("bloom"), "lora[sites=attn.q]"), tmp_path / "a")
    edit(folder, lambda tensors: next(own for key, own in tensors.items() if "lora_B" in key)[-1].fill_(value))
    assert refused(tiny("bloom"), folder, snapshot).code == code


@pytest.mark.parametrize(("value", "code"), [(float("nan"), "not-finite"), (1.0, "extra-tensor")])
def test_a_tensor_that_is_made_from_others_is_held_to_them(tiny, tmp_path, snapshot, value, code):
    model = llmad.attach(tiny("llama"), "p-tuning")
    (derived,) = state(model).adapters["default"].spec.derived()
    folder = llmad.save(model, tmp_path / "a")
    edit(folder, lambda tensors: tensors[derived].view(-1)[-1:].fill_(value))
    assert refused(tiny("llama"), folder, snapshot).code == code


def test_a_tensor_beside_the_others_is_refused_by_its_name(tiny, tmp_path, snapshot):
    folder = llmad.save(llmad.attach(tiny("llama"), "lora"), tmp_path / "a")
    edit(folder, lambda tensors: tensors.update({f"{next(iter(tensors))}.more": torch.zeros(1)}))
    assert refused(tiny("llama"), folder, snapshot).code == "extra-tensor"


def test_tensors_of_another_method_are_refused(tiny, tmp_path, snapshot):
    folders = [llmad.save(llmad.attach(tiny("llama"), spec), tmp_path / spec) for spec in ("series", "prompt")]
    (folders[1] / "adapter_model.safetensors").replace(folders[0] / "adapter_model.safetensors")
    assert isinstance(refused(tiny("llama"), folders[0], snapshot), ModelError)
