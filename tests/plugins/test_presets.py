"""Presets: the paper's parameter counts, and that every preset means what its name says."""

import pytest

import llmad
from llmad import pretrained
from llmad.plan import summary
from llmad_plugins.adapters.presets import PRESETS

# Hu et al., 2023 (arXiv 2304.01933), version 1, table 1, column "Params"; OPT-6.7B by the same rule.
TABLE_1 = {
    "llama-7b": {"lora-paper": "4.2M", "s-adapter-h": "201M", "s-adapter-p": "201M", "p-adapter": "201M"},
    "bloom-7b1": {"lora-paper": "3.9M", "s-adapter-h": "126M", "s-adapter-p": "189M", "p-adapter": "126M"},
    "gptj-6b": {"lora-paper": "3.7M", "s-adapter-h": "117M", "s-adapter-p": "176M", "p-adapter": "176M"},
    "opt-6.7b": {"lora-paper": "4.2M", "s-adapter-h": "134M", "s-adapter-p": "201M", "p-adapter": "201M"},
}


def in_words(parameters: int) -> str:
    """As the paper writes them."""
    millions = parameters / 1e6
    return f"{millions:.1f}M" if millions < 10 else f"{millions:.0f}M"


@pytest.mark.parametrize("backbone", TABLE_1)
def test_parameters_are_those_of_the_papers_table(backbone):
    model = pretrained.skeleton(backbone)
    for preset, wanted in TABLE_1[backbone].items():
        llmad.attach(model, preset)
        assert (preset, in_words(summary(model).trainable_parameters)) == (preset, wanted)
        llmad.detach(model)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_is_a_spec(preset):
    assert str(llmad.parse_spec(preset.name)) == str(llmad.parse_spec(preset.spec))


def test_options_override_those_of_the_preset():
    spec = llmad.parse_spec("s-adapter-h[bottleneck=8,layers=1:]")
    assert (spec.name, spec.bottleneck, str(spec.layers), spec.activation) == ("series", 8, "1:", "tanh")
    with pytest.raises(llmad.UsageError, match="bottlneck"):
        llmad.parse_spec("s-adapter-h[bottlneck=8]")


@pytest.mark.parametrize("preset", [preset.name for preset in PRESETS if preset.name != "prefix-paper-v2"])
def test_a_preset_attaches_or_says_why_not(model, architecture, preset):
    spec = llmad.parse_spec(preset)
    if architecture.startswith("opt") and str(spec.sites) == "mlp":
        with pytest.raises(llmad.UsageError, match="'mlp' is not in this opt model"):
            llmad.attach(model, spec)
    else:
        llmad.attach(model, spec)
        assert sum(parameter.numel() for _, parameter in llmad.parameters(model))


def test_they_are_listed_with_what_they_stand_for():
    rows = {row["name"]: row for row in llmad.list_adapters()}
    assert rows["p-adapter"]["preset"].startswith("parallel[bottleneck=256,sites=attn.qkv")
    assert rows["p-adapter"]["sites"] == "attn.qkv"
    assert rows["lora"]["preset"] == ""


def test_a_share_of_the_width_is_a_bottleneck(llama):
    llmad.attach(llama, "series[bottleneck=1/16,sites=attn.o,layers=0]")
    assert dict(llmad.parameters(llama))["model.layers.0.self_attn.o_proj:down.weight"].shape == (2, 32)
