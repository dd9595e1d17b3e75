"""The contract of a quantizer, on a stranger's own: weights as halves of whole numbers, read through the hook."""

import pytest
import torch
from torch import nn

import llmad
from llmad import Quantizer
from llmad.plan import plan
from llmad.quantization import owners
from llmad.registry import Offer, Plugin, parse_quantizer, registry


class Halves(nn.Module):
    """A linear map whose weight is kept as int16, two to a unit, in (in_features, out_features)."""

    def __init__(self, plain):
        super().__init__()
        self.in_features, self.out_features, self.bias = plain.in_features, plain.out_features, None
        self.register_buffer("packed", (plain.weight.detach().T * 512).round().to(torch.int16))

    def forward(self, x):
        return x @ (self.packed.to(x.dtype) / 512)


class InHalves(Quantizer):
    """A stranger's quantizer."""

    name = "halves"
    coarse: bool = False

    def config(self, dtype):
        raise llmad.UsageError("no-loading", f"halves are made by hand, not in {dtype}")

    @classmethod
    def owns(cls, module):
        return isinstance(module, Halves)

    @classmethod
    def dequantize(cls, module):
        return module.packed.T.float() / 512


@pytest.fixture
def stranger(monkeypatch):
    """The quantizer as a plugin brings it."""
    plugin = Plugin("p", "stranger", "1", "v1", offers=[Offer("quantizer", "halves", InHalves, "stranger", "1")])
    monkeypatch.setattr(registry(), "plugins", [*registry().plugins, plugin])


@pytest.fixture
def halved(llama, stranger):
    """A model with the up-projections in halves."""
    for layer in llama.model.layers:
        layer.mlp.up_proj = Halves(layer.mlp.up_proj)
    return llama


def test_it_is_found_by_name_and_listed(stranger):
    assert parse_quantizer("halves[coarse=true]") == InHalves(coarse=True)
    (row,) = [row for row in llmad.list_quantizers() if row["name"] == "halves"]
    assert row == {
        "name": "halves", "summary": "A stranger's quantizer.", "options": ["coarse=false"],
        "distribution": "stranger", "version": "1", "status": "ok",
    }  # fmt: skip


def test_its_modules_are_found_and_counted_as_what_they_stand_for(halved, tiny):
    assert owners(halved) == {f"model.layers.{layer}.mlp.up_proj": InHalves for layer in range(3)}
    spec = llmad.parse_spec("lora")
    assert plan(halved, spec).total_parameters == plan(tiny("llama"), spec).total_parameters


@pytest.mark.parametrize("method", ["lora", "dora", "series"])
def test_a_method_sits_on_it_and_is_saved_and_loaded(halved, tiny, logits, perturb, tmp_path, method):
    before = logits(halved)
    llmad.attach(halved, f"{method}[sites=mlp.up]")
    assert torch.equal(logits(halved), before)
    perturb(halved)
    folder = llmad.save(halved, tmp_path / "a")
    wanted = logits(halved)
    llmad.detach(halved)
    assert torch.equal(logits(llmad.load(halved, folder)), wanted)
    with pytest.warns(llmad.LlmadWarning, match="trained on a base quantised as halves; this one is not quantised"):
        llmad.load(tiny("llama"), folder)


def test_it_is_read_and_not_written(halved):
    llmad.attach(halved, "lora[sites=mlp.up]")
    with pytest.raises(llmad.ModelError, match="its weight is quantised: it can be read, and not written") as caught:
        llmad.merge(halved)
    assert caught.value.hint == "keep it attached, or use llmad merge --dequantize"
    llmad.attach(llmad.detach(halved), "series[sites=mlp.up]")
    with pytest.raises(llmad.ModelError, match="not a linear update") as caught:
        llmad.merge(halved)
    assert caught.value.hint == "keep it attached"


def test_without_it_the_weight_cannot_be_read(halved, monkeypatch):
    monkeypatch.setattr(registry(), "plugins", registry().plugins[:-1])
    with pytest.raises(llmad.ModelError, match="the place is no linear map"):
        llmad.attach(halved, "dora[sites=mlp.up]")


def test_what_it_does_not_define_is_told():
    class Bare(Quantizer):
        name = "bare"

    assert Bare.of({"quant_method": "bare"}) is None
    for call in (
        lambda: Bare().config("auto"),
        lambda: Bare.owns(nn.Identity()),
        lambda: Bare.dequantize(nn.Identity()),
    ):
        with pytest.raises(TypeError, match="Bare does not define"):
            call()


@pytest.mark.parametrize("text", ["nf", "in8", "int8x"])
def test_an_unknown_name_is_told_with_the_nearest(text):
    with pytest.raises(llmad.UsageError, match=f"there is no quantizer '{text}'") as caught:
        parse_quantizer(text)
    assert caught.value.hint.startswith("did you mean")


@pytest.mark.parametrize("text", ["", "nf4[", "nf4[double_quant]"])
def test_a_text_of_another_form_is_refused(text):
    with pytest.raises(llmad.UsageError) as caught:
        parse_quantizer(text)
    assert caught.value.code == "bad-spec"
