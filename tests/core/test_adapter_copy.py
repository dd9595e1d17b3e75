"""A copy of an adapter is written, and what was written is compared with it."""

import pytest
from safetensors.torch import load_file, save_file

import llmad
from llmad.adapter_copy import copied
from llmad.errors import StorageError
from llmad.record import WEIGHTS


@pytest.mark.parametrize("spec", ["lora", "compacter", "lora[sites=linear]", "prefix[num_virtual_tokens=2]"])
def test_a_copy_is_what_the_adapter_was(tmp_path, tiny, perturb, spec):
    model = llmad.attach(tiny("bloom"), spec)
    perturb(model)
    copy = copied(model)
    perturb(model, seed=12)
    copy.write(tmp_path)
    copy.check(tmp_path)
    with pytest.raises(StorageError):
        copied(model).check(tmp_path)


def test_what_an_adapter_is_built_on_is_compared_too(tmp_path, llama):
    llmad.attach(llama, "series", name="a")
    llmad.attach(llama, "lora")
    copy = copied(llama, built_on=["a"])
    copy.write(tmp_path)
    copy.check(tmp_path)
    file = tmp_path / "built_on" / "a" / WEIGHTS
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(StorageError, match="built_on/a"):
        copy.check(tmp_path)
