"""Adapters trained together on one base: each ends as it would have alone."""

import copy

import pytest
import torch

import llmad
from llmad.batching import Batching, batching_together
from llmad.data import Example
from llmad.errors import DivergedError, UsageError
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.train import Trainee, accelerator, fit, loss_scaler, optimizer
from tests.zoo import build

SPECS = {  # none at the keys: a bias there has next to no gradient, and Adam makes whole steps of what rounding leaves
    "a": "lora[dropout=0.2]",
    "b": "series[bottleneck=8]",
    "c": "parallel[bottleneck=8,sites=attn.q+attn.v]",
    "d": "ia3",
}
PROMPTS = {"a": "lora[dropout=0.2]", "b": "prompt[num_virtual_tokens=3]", "c": "prompt[num_virtual_tokens=2]"}
RECIPE = {"backbone": "b", "adapter": "lora", "task": "t", "learning_rate": 5e-3}


def rows(count, seed):
    source = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 12, (count,), generator=source).tolist()
    return [
        Example(
            tuple(torch.randint(3, 97, (length,), generator=source).tolist()),
            tuple(place >= length // 2 for place in range(length)),
        )
        for length in lengths
    ]


def trainee(model, name, number, **more):
    """Rows, seed, batch size and steps of its own."""
    told = {"seed": number, "per_device_train_batch_size": 2 + number, "max_steps": 50, "max_grad_norm": 0.1}
    recipe = Recipe(**{**RECIPE, **told, **more})
    examples = rows(12 + number, seed=number)
    schedule = Schedule(recipe, tuple(len(one.ids) for one in examples), recipe.learning_rate)
    adam = optimizer(dict(llmad.parameters(model, name)), recipe)
    return Trainee(schedule, examples, adam, loss_scaler(model), name=name)


def weights(model, name):
    return {key: value.detach().clone() for key, value in llmad.parameters(model, name)}


def train(model, numbered, how=None, **more):
    """The losses of each trainee."""
    trainees = [trainee(model, name, number, **more) for name, number in numbered.items()]
    how = how or batching_together(model, list(numbered), 0, wanted=True)
    losses = {name: [] for name in numbered}
    for steps in fit(model, trainees, how, accelerator()):
        names = [one.name for one in trainees if len(losses[one.name]) < one.schedule.steps]
        for name, step in zip(names, steps, strict=True):
            losses[name].append(step.done().loss)
    return losses


def attach(model, specs):
    torch.manual_seed(0)
    for name, spec in specs.items():
        llmad.attach(model, spec, name)
    return model


@pytest.mark.parametrize(
    "specs", [SPECS, {**SPECS, "e": "prompt[num_virtual_tokens=3]"}, PROMPTS], ids=["beside", "prompt", "prompts"]
)
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_each_ends_as_it_would_have_alone(llama, specs, packed):
    """Dropout too where rows are packed; padded ones are wider together, and dropout draws for the padding as well."""
    attach(llama, specs if packed else {**specs, "a": "lora"})
    numbered = {name: number for number, name in enumerate(specs)}
    how = batching_together(llama, list(specs), 0, wanted=packed)
    assert how.way == ("rows" if packed else None)
    together = copy.deepcopy(llama)
    losses = train(together, numbered, how)
    for name, number in numbered.items():
        alone = copy.deepcopy(llama)
        llmad.activate(alone, name)
        own = train(alone, {name: number}, how)
        torch.testing.assert_close(torch.tensor(losses[name]), torch.tensor(own[name]), rtol=1e-5, atol=1e-6)
        there = weights(together, name)
        for key, value in weights(alone, name).items():
            assert torch.allclose(there[key], value, rtol=1e-4, atol=1e-4 * float(value.abs().max())), key


def test_pairs_that_would_stand_before_all_rows_are_not_packed(llama):
    attach(llama, {"a": "lora", "b": "prefix"})
    assert batching_together(llama, ["a", "b"], 0, wanted=True).way is None


def test_one_that_is_done_leaves_the_others_alone(llama):
    attach(llama, {"a": "lora", "b": "ia3"})
    first, second = trainee(llama, "a", 0, max_steps=2), trainee(llama, "b", 1, max_steps=5)
    how = batching_together(llama, ["a", "b"], 0, wanted=True)
    steps = list(fit(llama, [first, second], how, accelerator()))
    assert [[step.planned.step for step in every] for every in steps] == [[1, 1], [2, 2], [3], [4], [5]]


def test_one_that_diverges_is_named(llama):
    attach(llama, {"a": "lora", "b": "ia3"})
    with pytest.raises(DivergedError, match=r"^adapter '[ab]', step \d+, rows \[.*: "):
        train(llama, {"a": 0, "b": 1}, learning_rate=1e20, max_grad_norm=0)


def test_accumulated_batches_are_each_ones_own(llama):
    attach(llama, {"a": "lora", "b": "ia3"})
    alone = copy.deepcopy(llama)
    train(llama, {"a": 0, "b": 1}, gradient_accumulation_steps=3, max_steps=4)
    llmad.activate(alone, "a")
    train(alone, {"a": 0}, gradient_accumulation_steps=3, max_steps=4)
    first, second = weights(llama, "a"), weights(alone, "a")
    assert all(torch.allclose(value, second[key], atol=1e-5) for key, value in first.items())


def test_adapters_at_experts_are_not_trained_together():
    model = build("mixtral")
    llmad.attach(model, "lora[sites=expert.up]", "a")
    llmad.attach(model, "lora", "b")
    with pytest.raises(UsageError, match="tokens of all rows are mixed"):
        train(model, {"a": 0, "b": 1}, Batching(0))
