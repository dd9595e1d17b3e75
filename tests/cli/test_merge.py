"""`llmad merge`: what is written is the adapted model, and what cannot be merged is refused with nothing written."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import llmad as api


@pytest.fixture
def adapter(folder, place):
    """Make an adapter directory: `adapter("dora", "name", seed=1)`."""

    def adapter(spec, name, seed=1):
        model = AutoModelForCausalLM.from_pretrained(folder)
        api.attach(model, spec)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in api.parameters(model):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        api.save(model, place / name, about={"backbone": folder})
        return name

    return adapter


IDS = torch.arange(5, 25)[None]


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize("spec", ["lora[sites=linear]", "dora", "ia3"])
def test_the_merged_model_needs_no_llmad(llmad, adapter, folder, place, spec):
    done = llmad("merge", adapter(spec, "a"), "--output", "merged", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["difference"] < 1e-4 < found["effect"]
    assert found["same_choice"] == 1.0
    merged = AutoModelForCausalLM.from_pretrained(place / "merged")
    adapted = api.load(AutoModelForCausalLM.from_pretrained(folder), place / "a")
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(place / "merged").vocab_size
    assert not list(place.glob(".*"))


def test_a_run_directory_is_merged_and_told_in_words(llmad, trained, place):
    shutil.copytree(trained, place / "run")
    done = llmad("merge", "run", "--output", "merged")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert json.loads((place / "merged" / "llmad_prompt.json").read_text())["prompt"]["question"]
    assert lines[0].startswith("merged     run/adapter into ")
    assert lines[-1] == "written    merged"


def test_the_average_of_several_is_merged(llmad, adapter, folder, place):
    names = [adapter("lora", "a", seed=1), adapter("lora", "b", seed=2)]
    done = llmad("merge", *names, "--weights", "1,3", "--output", "merged")
    assert done.code == 0, done.err
    model = AutoModelForCausalLM.from_pretrained(folder)
    for name in names:
        api.load(model, place / name, name)
    wanted = logits(api.average(model, {"a": 1, "b": 3}))
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(place / "merged")), wanted, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("spec", "words"), [
    ("series", "SeriesLayer is not a linear update"), ("prompt[num_virtual_tokens=2]", "is not a linear update"),
])  # fmt: skip
def test_what_is_not_linear_is_refused(refused, adapter, spec, words):
    told = refused(4, "merge", adapter(spec, "a"), "--output", "merged")
    assert words in told
    assert "hint: keep it attached" in told


def test_a_value_that_is_not_finite_is_refused(refused, adapter, place):
    from safetensors.torch import load_file, save_file

    path = place / adapter("lora", "a") / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path)
    assert "not finite" in refused(4, "merge", "a", "--output", "merged")


def test_an_output_that_is_taken_is_refused(refused, adapter, place):
    adapter("lora", "a")
    assert "a is there already" in refused(2, "merge", "a", "--output", "a")
    assert ". is there already" in refused(2, "merge", "a", "--output", ".")
    (place / "file").write_text("x")
    assert "file is there already" in refused(2, "merge", "a", "--output", "file")


@pytest.mark.parametrize(("weights", "words"), [
    ("1", "1 weights for 2 adapters"), ("1,2,3", "3 weights for 2"), ("1,x", "no numbers"), ("1,-1", "positive sum"),
    ("nan,1", "positive sum"),
])  # fmt: skip
def test_wrong_weights_are_refused(refused, adapter, weights, words):
    names = [adapter("lora", "a"), adapter("lora", "b")]
    assert words in refused(2, "merge", *names, "--weights", weights, "--output", "merged")


def test_unlike_adapters_have_no_average(refused, adapter):
    names = [adapter("lora", "a"), adapter("lora[r=4]", "b")]
    assert "is lora[r=4]" in refused(2, "merge", *names, "--output", "merged")


def test_a_missing_directory_is_refused(refused):
    assert "nowhere is no adapter directory" in refused(4, "merge", "nowhere", "--output", "merged")


def test_a_base_that_half_precision_would_change_too_much_is_refused(refused, adapter, monkeypatch):
    monkeypatch.setattr("llmad.merged._TOLERANCE", {torch.float32: 0.0})
    told = refused(4, "merge", adapter("lora", "a"), "--output", "merged")
    assert "merging changed logits" in told


def test_weights_for_one_adapter_are_refused(refused, adapter):
    assert "1 weights for 1 adapters" in refused(2, "merge", adapter("lora", "a"), "-w", "0.5", "--output", "merged")


def test_what_is_built_on_another_is_merged_with_it(llmad, folder, place):
    model = AutoModelForCausalLM.from_pretrained(folder)
    for name in "ab":
        api.attach(model, "lora", name)
        with torch.no_grad():
            for _, parameter in api.parameters(model, name):
                parameter.add_(0.1 * torch.randn(parameter.shape))
    api.save(model, place / "b", "b", about={"backbone": folder}, built_on=["a"])
    assert llmad("merge", "b", "--output", "merged").code == 0
    merged = AutoModelForCausalLM.from_pretrained(place / "merged")
    torch.testing.assert_close(logits(merged), logits(model), atol=1e-4, rtol=1e-4)
