"""The weighted average of adapters."""

import pytest
import torch

import llmad


@pytest.mark.parametrize("spec", ["lora", "series", "ia3", "prompt[num_virtual_tokens=2]"])
def test_every_tensor_is_the_weighted_average(model, perturb, spec):
    for name, seed in (("a", 1), ("b", 2)):
        perturb(llmad.attach(model, spec, name), name, seed=seed)
    llmad.average(model, {"a": 1, "b": 3}, "mean")
    mean, a, b = (dict(llmad.parameters(model, name)) for name in ("mean", "a", "b"))
    for key, parameter in mean.items():
        torch.testing.assert_close(parameter, 0.25 * a[key] + 0.75 * b[key])


def test_the_average_of_one_is_itself_and_alone_is_active(model, logits, perturb):
    perturb(llmad.attach(model, "series", "a"), "a")
    before = logits(model)
    llmad.average(model, {"a": 2.0})
    assert torch.equal(logits(model), before)
    llmad.detach(model, "average")
    llmad.activate(model, "a")
    assert torch.equal(logits(model), before)


def test_the_average_of_linear_methods_can_be_merged(model, logits, perturb):
    for name, seed in (("a", 1), ("b", 2)):
        perturb(llmad.attach(model, "lora", name), name, seed=seed)
    before = logits(llmad.average(model, {"a": 1, "b": 1}))
    llmad.merge(model, "average")
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("weights", "code"), [
    ({"a": 1, "c": 1}, "unlike-adapters"), ({"a": 1, "d": 1}, "not-attached"), ({}, "bad-weights"),
    ({"a": 1, "b": -1}, "bad-weights"), ({"a": float("nan")}, "bad-weights"), ({"a": float("inf")}, "bad-weights"),
])  # fmt: skip
def test_what_has_no_average_changes_nothing(llama, snapshot, weights, code):
    for name, spec in (("a", "lora"), ("b", "lora"), ("c", "lora[r=4]")):
        llmad.attach(llama, spec, name)
    before = snapshot(llama)
    with pytest.raises(llmad.UsageError) as caught:
        llmad.average(llama, weights)
    assert caught.value.code == code
    assert snapshot(llama) == before


def test_an_average_draws_nothing(llama):
    llmad.attach(llama, "lora", "a")
    before = torch.get_rng_state()
    llmad.average(llama, {"a": 1.0})
    assert torch.equal(torch.get_rng_state(), before)
