"""What of a model is quantised, by whom, and how many weights it has in truth."""

import math

import pytest

import llmad
from llmad.plan import plan, summary
from llmad.quantization import describe, owner, owners, quantization, sizes


def test_a_plain_model_has_no_owner_and_no_quantization(model):
    assert owners(model) == {}
    assert quantization(model) is None
    assert owner(model) is None


@pytest.mark.parametrize("quantizer", [
    "int8[threshold=6.0]", "nf4[double_quant=true,compute_dtype=float32]",
    "fp4[double_quant=false,compute_dtype=bfloat16]",
])  # fmt: skip
def test_the_text_says_everything(quantised, quantizer):
    assert quantization(quantised("llama", quantizer)) == quantizer


def test_a_config_that_no_quantizer_knows_is_called_by_its_method():
    assert describe({"quant_method": "gptq", "bits": 4}) == "gptq"
    assert describe({"bits": 4}) == "unknown"


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "opt"])
@pytest.mark.parametrize("quantizer", ["int8", "nf4"])
def test_parameters_are_those_of_the_plain_base(tiny, quantised, quantizer, family):
    plain, model = tiny(family), quantised(family, quantizer)
    assert {name: sorted(shape) for name, shape, _ in sizes(model)} == {
        name: sorted(shape) for name, shape, _ in sizes(plain)
    }
    total = sum(parameter.numel() for parameter in plain.parameters())
    assert sum(math.prod(shape) for _, shape, _ in sizes(model)) == total


@pytest.mark.parametrize("quantizer", ["int8", "nf4"])
def test_a_plan_and_a_summary_count_true_weights(tiny, quantised, quantizer):
    plain, model = tiny("llama"), quantised("llama", quantizer)
    spec = llmad.parse_spec("lora[sites=linear]")
    made = plan(model, spec)
    assert made == plan(plain, spec)
    assert summary(llmad.attach(model, spec)) == made
