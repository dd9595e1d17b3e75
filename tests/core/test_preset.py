"""Presets of strangers: what they stand for must be a method."""

import pytest

import llmad
from llmad import Preset


def test_a_preset_says_what_it_is():
    preset = Preset("wide", "lora[r=64]", "a wide one")
    assert (preset.name, preset.summary()) == ("wide", "a wide one")


@pytest.mark.parametrize("spec", ["lora-paper", "nothing", "lora[r=0]"])
def test_one_that_stands_for_no_method_is_listed_as_broken_and_stops_nothing_else(monkeypatch, spec):
    from llmad.registry import registry
    from llmad_plugins.adapters import presets

    monkeypatch.setattr(presets, "PRESETS", [*presets.PRESETS, Preset("odd", spec, "odd")])
    registry.cache_clear()
    try:
        rows = {row["name"]: row for row in llmad.list_adapters()}
        assert rows["odd"]["status"] == "broken"
        assert rows["lora-paper"]["status"] == "ok"
        with pytest.raises(llmad.LlmadError):
            llmad.parse_spec("odd")
    finally:
        monkeypatch.undo()
        registry.cache_clear()
