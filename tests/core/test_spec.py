from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import PositiveInt, model_validator

import llmad
from llmad import AdapterSpec, Site, Sites, UsageError
from llmad.selector import Layers

SITE = Site("a.b", "attn.q", 0, 4, 4)


class Toy(AdapterSpec):
    """A toy.

    With more to say.
    """

    name = "toy"
    sites: Sites = Sites("attn.q")
    r: PositiveInt = 8
    share: float = 0.5

    @model_validator(mode="after")
    def _not_seven(self) -> "Toy":
        if self.r == 7:
            raise ValueError("r is seven")
        return self


@given(st.text(max_size=40) | st.text(alphabet="lora[]=,+:{}()'\" r168sites.@", max_size=40))
@pytest.mark.filterwarnings("ignore:Possible (nested set|set):FutureWarning")  # re's word on odd expressions
def test_garbage_gives_a_usage_error_and_no_other(text):
    with suppress(UsageError):
        llmad.parse_spec(text)


@pytest.mark.parametrize("text", [
    "lora", "lora[sites=attn.q+mlp.up@before,layers=8:,r=16,alpha=32.0]", "series[bottleneck=8,activation=gelu]",
    "parallel[scaling=learned]", "parallel[layers=0+3+5,scaling=0.5]", "prompt[num_virtual_tokens=3]",
    r"lora[sites=path:model\.layers\.\d{1,2}\..*]",
])  # fmt: skip
def test_a_spec_reads_back_what_it_prints(text):
    spec = llmad.parse_spec(text)
    assert str(spec) == text
    assert llmad.parse_spec(str(spec)) == spec
    assert type(spec).read(spec.options()) == spec


def test_all_wrong_options_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        Toy.read({"r": 0, "sites": "attn.qq", "shere": 1, "layers": "x"})
    message = str(caught.value)
    assert all(word in message for word in ("r:", "sites:", "no option 'shere'", "layers:"))
    assert caught.value.hint.startswith("did you mean share?")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan"])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(UsageError, match="share"):
        Toy.read({"share": value})


def test_a_fault_of_the_whole_is_told_without_an_option():
    with pytest.raises(UsageError) as caught:
        Toy.read({"r": 7})
    assert str(caught.value) == "toy: r is seven"


def test_a_spec_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Toy().r = 9


def test_the_summary_is_the_first_line():
    assert Toy.summary() == "A toy."


def test_options_are_plain_data():
    assert Toy(layers=Layers("-4:")).options() == {"sites": "attn.q", "layers": "-4:", "r": 8, "share": 0.5}


def test_the_json_schema_knows_every_option():
    assert Toy.model_json_schema()["properties"].keys() == {"sites", "layers", "r", "share"}


def test_a_method_without_build_says_so():
    with pytest.raises(TypeError, match="Toy does not define build"):
        Toy().build(SITE)


def test_export_and_restore_are_inverse():
    other = Site("a.c", "attn.q", 1, 4, 4)
    tensors: list[tuple[Site, Any]] = [(SITE, {"w": torch.ones(2)}), (other, {"w": torch.zeros(2)})]
    config, named = Toy().export(tensors)
    assert config == {"method": "toy", "options": Toy().options()}
    assert Toy().restore([SITE, other], named) == dict(tensors)


def test_a_method_reads_no_peft_layout_unless_it_says_so():
    with pytest.raises(UsageError, match="does not read PEFT"):
        Toy.from_peft({"peft_type": "TOY"})
