"""The plain model that a quantised one stands for: the same logits, in the layout of its kind, with no trace of it."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmad.dequantised import dequantised
from llmad.errors import ModelError
from llmad.quantization import owners, quantization


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "gptj", "opt"])
@pytest.mark.parametrize(("quantizer", "error"), [("int8", 0.05), ("nf4", 1e-4)])
def test_it_computes_the_same_and_is_written_as_a_plain_model(
    quantised, tiny, logits, tmp_path, quantizer, error, family
):
    model = quantised(family, quantizer)
    wanted = logits(model)
    found, plain = dequantised(model), tiny(family)
    assert (logits(found) - wanted).abs().max() <= error * wanted.abs().max()
    assert not owners(found)
    assert quantization(found) is None
    assert [(n, type(m)) for n, m in found.named_modules()] == [(n, type(m)) for n, m in plain.named_modules()]
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert quantization(model)
    assert torch.equal(logits(model), wanted)
    found.save_pretrained(tmp_path)
    assert "quantization" not in (tmp_path / "config.json").read_text()
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(found))


def test_what_no_quantizer_reads_is_refused(llama):
    llama.config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(ModelError, match="no installed quantizer reads weights that are quantised as gptq"):
        dequantised(llama)
