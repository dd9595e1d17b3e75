"""Quantised bases on the command line: `--quantize` and `--dequantize`, from training to a plain merged model."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llmad import pretrained
from llmad.registry import registry

NF4 = "nf4[double_quant=true,compute_dtype=bfloat16]"
SHORT = ("--set", "max_steps=3", "--set", "per_device_train_batch_size=2")


@pytest.fixture
def run(llmad, folder, place):
    """Train for a moment, on a few rows and a quantised base: `run("nf4", "lora")`."""
    rows = place / "rows.json"
    rows.write_text(json.dumps(registry().task("arithmetic").rows("train", 6, 0)))

    def run(quantizer, adapter="lora", output="run"):
        words = ("--backbone", folder, "--quantize", quantizer, "--adapter", adapter, "--output", output, *SHORT)
        words += ("--task", "arithmetic", "--data", rows)
        done = llmad("train", *words, "--set", "do_eval=false", "--set", "learning_rate=1e-2")
        assert done.code == 0, done.err
        assert done.err.count("\n") == 3, done.err  # a line a step and no other word
        return output

    return run


def test_the_embedded_backbone_is_quantised_trained_and_scored(llmad, place):
    words = ("train", "--quantize", "nf4", "--output", "run", *SHORT, "--set", "max_eval_samples=2")
    done = llmad(*words, "--set", "per_device_eval_batch_size=2")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == f"backbone    abacus on cpu, quantised as {NF4}"
    assert "16,384 trained of 1,059,968 (1.55%)" in done.out
    assert json.loads((place / "run" / "recipe.json").read_text())["quantize"] == "nf4"
    about = json.loads((place / "run" / "adapter" / "llmad.json").read_text())
    assert about["quantization"] == NF4
    found = json.loads(llmad("evaluate", "run", "--limit", 1, "--json").out)
    assert found["quantization"] == NF4


@pytest.mark.parametrize("quantizer", ["int8", "nf4[compute_dtype=float32]"])
def test_an_adapter_is_scored_on_its_base_as_it_was_or_as_asked(llmad, run, quantizer):
    done = llmad("evaluate", run(quantizer), "--limit", 1)
    assert (done.code, done.err.count("warning")) == (0, 0)
    assert f"quantised as {quantizer.partition('[')[0]}[" in done.out.splitlines()[-1]
    done = llmad("evaluate", "run", "--limit", 1, "--quantize", "none")
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert line.startswith("warning: run/adapter: it was trained on a base quantised as ")
    assert line.endswith("; this one is not quantised")
    assert "quantised" not in done.out


def test_adapters_of_differently_quantised_bases_need_a_word(llmad, run, refused):
    run("int8", output="a"), run("nf4", output="b")
    told = refused(2, "evaluate", "a", "b", "--limit", 1)
    assert "quantised in several ways: int8[threshold=6.0] and nf4[" in told
    assert "hint: give --quantize" in told
    assert llmad("evaluate", "a", "b", "--limit", 1, "--quantize", "nf4").code == 0


def test_a_quantised_base_is_not_merged_into(run, refused):
    told = refused(4, "merge", run("nf4"), "--output", "merged")
    assert f"is quantised as {NF4}: its weights can be read, and not written" in told
    assert "hint: --dequantize merges into plain weights" in told


def test_it_may_be_merged_into_the_base_as_it_is_stored(llmad, run, folder, place):
    done = llmad("merge", run("nf4"), "--quantize", "none", "--output", "merged")
    assert done.code == 0, done.err
    assert done.err.startswith("warning: run/adapter: it was trained on a base quantised as ")
    merged = AutoModelForCausalLM.from_pretrained(place / "merged").model.layers[0].mlp
    assert torch.equal(merged.up_proj.weight, pretrained.load(folder).model.model.layers[0].mlp.up_proj.weight)


IDS = torch.arange(5, 25)[None]


@pytest.mark.parametrize("adapter", ["lora[sites=linear]", "dora", "ia3"])
@pytest.mark.parametrize(("quantizer", "error"), [("int8", 1.0), ("nf4[compute_dtype=float32]", 1e-3)])
def test_it_is_merged_into_the_dequantised_base(llmad, run, folder, place, quantizer, error, adapter):
    done = llmad("merge", run(quantizer, adapter), "--dequantize", "--output", "merged", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["quantization"].startswith(quantizer.partition("[")[0])
    assert found["difference"] < min(error, found["effect"])
    merged = AutoModelForCausalLM.from_pretrained(place / "merged").eval()
    plain = load_file(f"{folder}/model.safetensors")
    tensors = load_file(place / "merged" / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: tensor.shape for n, tensor in plain.items()}
    from llmad import load

    adapted = load(pretrained.load(folder, quantize=quantizer).model, place / "run" / "adapter")
    with torch.no_grad():
        assert (merged(IDS).logits - adapted(IDS).logits).abs().max() <= error


def test_merging_is_told_in_words(llmad, run):
    done = llmad("merge", run("nf4"), "--dequantize", "--output", "merged")
    assert done.code == 0, done.err
    assert f"base       dequantised from {NF4}" in done.out.splitlines()
    assert "between merged and those of the quantised base with the adapter" in done.out


def test_there_must_be_something_to_dequantise(refused, trained):
    assert "has nothing to dequantise" in refused(2, "merge", trained, "--dequantize", "--output", "merged")


@pytest.mark.parametrize(("quantizer", "words"), [
    ("nf", "there is no quantizer 'nf'"), ("nf4[double=1]", "nf4: no option 'double'"),
    ("nf4[", "'nf4[' is no quantizer"),
    ("int8[threshold=x]", "int8: threshold: "),
])  # fmt: skip
def test_a_wrong_quantizer_is_refused_with_one_line(refused, trained, quantizer, words):
    assert words in refused(2, "train", "--quantize", quantizer, "--output", "run")
    assert words in refused(2, "evaluate", trained, "--quantize", quantizer)
    assert words in refused(2, "merge", trained, "--quantize", quantizer, "--output", "merged")


def test_the_nearest_quantizer_is_named(refused):
    assert "hint: did you mean nf4?" in refused(2, "train", "--quantize", "nf", "--output", "run")


@pytest.fixture
def stored(folder, place):
    """A folder that is stored quantised."""
    found = pretrained.load(folder, quantize="nf4")
    for part in (found.model, found.tokenizer):
        part.save_pretrained(place / "stored")
    return "stored"


def test_a_folder_that_is_stored_quantised_needs_no_word(llmad, stored, place):
    done = llmad("train", "--backbone", stored, "--output", "run", *SHORT, "--set", "do_eval=false")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == f"backbone    stored on cpu, quantised as {NF4}"
    assert llmad("evaluate", "run", "--limit", 1).err.count("warning") == 0
    assert llmad("merge", "run", "--output", "merged").code == 4
    done = llmad("merge", "run", "--dequantize", "--output", "merged", "--json")
    assert done.code == 0, done.err
    assert "quantization" not in (place / "merged" / "config.json").read_text()


def test_what_is_stored_quantised_is_not_quantised_once_more(refused, stored):
    words = ("--backbone", stored, "--quantize", "int8", "--output", "run")
    assert f"stored is stored quantised as {NF4}, and cannot be" in refused(2, "train", *words)
