"""Plans: what a spec would do, without doing it."""

import pytest

import llmad
from llmad.errors import UsageError
from llmad.plan import plan, summary


def test_a_plan_says_what_attaching_would_do(model, snapshot):
    before = snapshot(model)
    made = plan(model, llmad.parse_spec("lora[r=2,sites=attn.q]"))
    assert snapshot(model) == before
    llmad.attach(model, "lora[r=2,sites=attn.q]")
    assert made == summary(model)
    assert made.trainable_parameters == sum(value.numel() for _, value in llmad.parameters(model))
    assert made.total_parameters == sum(value.numel() for value in model.parameters())


def test_without_a_spec_every_site_is_there_and_nothing_trained(llama):
    made = plan(llama, None)
    assert made.trainable_parameters == 0
    assert list(made.sites) == llmad.sites(llama)


def test_roles_are_counted(llama):
    made = plan(llama, llmad.parse_spec("lora[sites=attn.q+mlp.up@before,layers=1:]"))
    assert made.roles == "attn.q x 2, mlp.up@before x 2"
    assert made.describe()["sites"][0]["role"] == "attn.q"
    assert 0 < made.share < 1


def test_a_selector_that_matches_nothing_is_refused(tiny):
    with pytest.raises(UsageError, match="99"):
        plan(tiny("llama").to("meta"), llmad.parse_spec("lora[layers=99]"))
