from hashlib import sha256

import pytest
import torch
from torch import nn

import llmad
from llmad.fingerprint import difference, fingerprint


def differs(one, other):
    """In what; the same from both sides."""
    found = difference(fingerprint(one), fingerprint(other))
    assert found == difference(fingerprint(other), fingerprint(one))
    return found


def test_it_is_the_same_in_another_dtype(tiny):
    assert fingerprint(tiny("llama")) == fingerprint(tiny("llama").to(torch.bfloat16))


def test_adapters_do_not_count(model):
    before = fingerprint(model)
    llmad.attach(model, "lora")
    assert fingerprint(model) == before


def test_a_sum_is_of_every_nth_value_of_a_kind_in_bfloat16():
    model = nn.ModuleList([nn.Linear(10, 7, bias=False), nn.Linear(2, 3, bias=False)])
    with torch.no_grad():
        for linear in model:
            linear.weight.copy_(torch.arange(linear.weight.numel()).view_as(linear.weight))
    numbers = [*range(0, 64, 2), *range(6)]  # 70 values are every second of which 32 are taken, 6 are all taken
    halves = torch.tensor(numbers, dtype=torch.bfloat16).view(torch.int16).tolist()
    wanted = sha256(b"".join(half.to_bytes(2, "little", signed=True) for half in halves)).hexdigest()
    assert fingerprint(model)["*.weight"] == wanted


def test_other_weights_differ(tiny):
    assert differs(tiny("llama"), tiny("llama", seed=1)) == "lm_head.weight"


@pytest.mark.parametrize("path", ["model.norm", "model.layers.2.mlp.up_proj"])
def test_one_other_parameter_differs_in_its_kind(tiny, path):
    other = tiny("llama")
    with torch.no_grad():
        other.get_submodule(path).weight.add_(1)
    assert differs(tiny("llama"), other) == f"{path.replace('2', '*')}.weight"


def test_another_depth_differs(tiny):
    assert differs(tiny("llama"), tiny("llama", layers=4)) == "names and shapes"


def test_it_needs_no_weights_to_exist(tiny):
    assert fingerprint(tiny("llama").to("meta")) == fingerprint(tiny("llama", seed=1).to("meta"))


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize("quantizer", ["int8", "nf4"])
def test_a_quantised_base_is_the_plain_one_and_no_other(tiny, quantised, ids, quantizer, family):
    plain, other, model = tiny(family), tiny(family, seed=1), quantised(family, quantizer)
    assert differs(plain, model) == ""
    model(ids)  # what a first call moves about does not show
    assert differs(plain, model) == ""
    assert differs(other, model)
    assert differs(plain, quantised(family, quantizer, seed=1))
    assert differs(tiny(family, layers=2), model) == "names and shapes"


@pytest.mark.parametrize("quantizer", ["int8", "nf4"])
def test_the_values_of_quantised_kinds_are_left_open_and_no_others(quantised, quantizer):
    found = fingerprint(quantised("llama", quantizer))
    open_ = {kind for kind, value in found.items() if value is None}
    assert open_ == {kind for kind in found if "_proj" in kind}


def test_two_quantizations_of_one_base_agree(quantised):
    assert differs(quantised("bloom", "int8"), quantised("bloom", "nf4")) == ""


def test_a_fingerprint_that_lacks_a_kind_agrees_with_none(tiny):
    found = fingerprint(tiny("llama"))
    short = {kind: value for kind, value in found.items() if kind != "model.norm.weight"}
    assert difference(short, found) == difference(found, short) == "model.norm.weight"
    assert difference({}, found)
