"""Setting up a run: what is refused, left out and chosen before the first step."""

import json

import pytest
import torch

from llmad import packable
from llmad import rows as row_files
from llmad.attachment import parameters
from llmad.errors import ResumeError, UsageError
from llmad.registry import registry
from llmad.run import train_adapter
from llmad.run_dir import RunDir
from llmad.setup import Ground, load_base, set_up, set_up_together
from llmad.train import accelerator


def test_a_fresh_setup_has_everything_and_writes_nothing(told, tmp_path):
    own = set_up(told(output_dir=str(tmp_path / "run"), max_steps=3), None)
    assert (own.done, own.schedule.steps, len(own.encoded.examples), own.built_on) == (0, 3, 12, [])
    assert not (tmp_path / "run").exists()


def test_test_rows_are_not_taken_from_the_training_file(told, tmp_path):
    rows = tmp_path / "rows.json"
    rows.write_text('[{"instruction": "1 + 1?", "output": "2", "answer": "2"}]')
    with pytest.raises(UsageError, match="training rows only"):
        train_adapter(told(data=str(rows), task="math", do_eval=True), lambda _: None)


def test_rows_longer_than_the_model_has_positions_for_are_left_out(told, tmp_path):
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"instruction": word, "output": "2"} for word in ("1 + 1?", "x" * 300)]))
    events = []
    train_adapter(told(data=str(rows), task="arithmetic", max_length=5000), events.append, dry=True)
    assert (events[0].checks.rows, events[0].checks.left_out) == (1, 1)


def test_a_recipe_without_an_output_takes_a_free_name(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        train_adapter(told(max_steps=1), lambda _: None)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "tiny-lora-arithmetic",
        "tiny-lora-arithmetic-2",
    ]


@pytest.fixture
def ground(told):
    """What two seeds share on one base, with the rows of a file."""
    recipe = told()
    task = registry().task(recipe.task)
    loaded = row_files.rows(task, "train", recipe.data, task.train_rows, 0)
    device = accelerator()
    return Ground(task, device, load_base(recipe, device), {0: loaded, 1: loaded}, {})


def test_adapters_are_set_up_beside_one_another_as_alone(told, tmp_path, ground):
    recipes = {"a": told(adapter="lora"), "b": told(adapter="series", seed=1)}
    runs = set_up_together(ground, {name: (recipe, RunDir(tmp_path / name)) for name, recipe in recipes.items()})
    assert [own.name for own in runs] == ["a", "b"]
    assert runs[0].encoded is runs[1].encoded  # tokens of the same rows are made once
    for own in runs:
        alone = set_up(told(adapter=own.recipe.adapter, seed=own.recipe.seed, output_dir=str(tmp_path)), None)
        assert own.built_on == []
        assert own.schedule.peak == alone.schedule.peak
        pairs = zip(parameters(ground.base.model, own.name), parameters(alone.base.model), strict=True)
        assert all(name == other and torch.equal(one, two) for (name, one), (other, two) in pairs)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_packed_does_not_go_on_padded(told, tmp_path, monkeypatch):
    recipe = told(output_dir=str(tmp_path / "run"), max_steps=2)
    train_adapter(recipe, lambda _: None)
    monkeypatch.setattr(packable, "way", lambda _: None)
    with pytest.raises(ResumeError, match=r"batching: 'packed \(rows\)' then, 'padded' now") as error:
        train_adapter(recipe, lambda _: None, tmp_path / "run")
    assert error.value.exit_code == 7


@pytest.mark.parametrize("adapter", ["prompt[num_virtual_tokens=150]", "prefix[num_virtual_tokens=150]"])
def test_rows_must_fit_beside_the_tokens_that_an_adapter_puts_before_them(told, adapter):
    """The base has 256 positions."""
    whole, beside = (set_up(told(adapter=one), None) for one in ("lora", adapter))
    longest = max(len(example.ids) for example in beside.encoded.examples)
    assert longest <= 106
    assert beside.checks.left_out == sum(len(example.ids) > 106 for example in whole.encoded.examples) > 0


def test_beside_one_another_each_adapter_has_the_rows_that_it_has_alone(told, tmp_path, ground):
    recipes = {"low": told(), "virtual": told(adapter="prompt[num_virtual_tokens=150]")}
    low, virtual = set_up_together(ground, {name: (one, RunDir(tmp_path / name)) for name, one in recipes.items()})
    alone = set_up(recipes["virtual"], None)
    assert (low.checks.left_out, virtual.encoded) == (0, alone.encoded)
    assert alone.checks.left_out
