"""Rows at once that are picked to fit, and what a run that is gone on with makes of them."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llmad import memory, picking
from llmad.errors import OutOfMemoryError, ResumeError, UsageError
from llmad.fitting import Run
from llmad.picking import kept
from llmad.run import train_adapter
from llmad.setup import set_up
from llmad.study import load

ASKED = {"auto_find_batch_size": True, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


@pytest.fixture
def room(told, tmp_path, monkeypatch):
    """Plant memory for so many rows at once; the bounds of a tiny model would hide what computing again saves."""
    monkeypatch.setattr("llmad.budget._slack", lambda *_: 0)
    monkeypatch.setattr(picking, "_BUSY", {"cpu": 1})  # one row of it keeps that busy

    def room(size, less=0, **values):
        asked = {**ASKED, **values, "auto_find_batch_size": False}
        own = set_up(told(output_dir=str(tmp_path / "tried"), **asked), None)
        run = Run(own.base.model, own.batching, own.schedule, own.encoded.examples)
        found = run.estimate(per_device_train_batch_size=size, gradient_accumulation_steps=8 // size)
        monkeypatch.setattr(memory, "free", lambda model: 0)
        taken = run.estimate().room
        monkeypatch.setattr(memory, "free", lambda model: found.upper - taken - less)

    return room


def trained(recipe, resume=None, dry=False):
    events = []
    train_adapter(recipe, events.append, resume, dry)
    return events


def batch(recipe):
    return recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps, recipe.gradient_checkpointing


@pytest.mark.parametrize("size", [8, 4, 2, 1])
def test_as_many_rows_as_fit_are_picked(told, tmp_path, room, size):
    room(size)
    (plan,) = trained(told(output_dir=str(tmp_path / "run"), **ASKED), dry=True)
    assert batch(plan.recipe) == (size, 8 // size, False)
    rows = "1 row" if size == 1 else f"{size} rows"
    assert plan.picked == f"{rows} at once, {'once' if size == 8 else f'{8 // size} times'} a step"
    assert plan.memory.fits
    assert not (tmp_path / "run").exists()


def test_what_was_picked_trains_the_same(told, tmp_path, room):
    losses, adapters = [], []
    room(2)
    for name, asked in {"picked": ASKED, "asked": {**ASKED, "auto_find_batch_size": False}}.items():
        events = trained(told(output_dir=str(tmp_path / name), **asked))
        losses.append([event.loss for event in events[1:-1]])
        adapters.append(load_file(tmp_path / name / "adapter" / "adapter_model.safetensors"))
    assert json.loads((tmp_path / "picked" / "recipe.json").read_text())["per_device_train_batch_size"] == 2
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert all(torch.allclose(adapters[0][name], adapters[1][name], rtol=1e-3, atol=1e-5) for name in adapters[0])


def test_blocks_are_computed_again_only_where_nothing_fits_without(told, tmp_path, room):
    room(1, less=1)
    recipe = told(output_dir=str(tmp_path / "run"), **ASKED)
    own = set_up(recipe, None)
    assert own.recipe.gradient_checkpointing
    assert any(getattr(part, "gradient_checkpointing", False) for part in own.base.model.modules())
    assert own.picked.words.endswith("blocks computed again")
    assert trained(recipe)[-1].output == tmp_path / "run"


def test_blocks_are_computed_again_where_that_is_faster(told, tmp_path, room, monkeypatch):
    """One row does not keep the device busy, and there is not room for two, but with their blocks computed again."""
    room(2, less=1)
    recipe = told(output_dir=str(tmp_path / "run"), **ASKED)
    own = set_up(recipe, None)
    assert batch(own.recipe) == (1, 8, False)
    tokens = sum(own.schedule.lengths) / len(own.schedule.lengths)
    monkeypatch.setattr(picking, "_BUSY", {"cpu": round(8 * tokens)})
    size, times, again = batch(set_up(recipe, None).recipe)
    assert (size > 1, size * times, again) == (True, 8, True)
    monkeypatch.setattr(picking, "_SLOWER", 100)
    assert batch(set_up(recipe, None).recipe) == (1, 8, False)


def test_blocks_that_were_to_be_computed_again_are(told, tmp_path, room):
    room(8)
    own = set_up(told(output_dir=str(tmp_path / "run"), gradient_checkpointing=True, **ASKED), None)
    assert batch(own.recipe) == (8, 1, True)
    assert own.picked.words == "8 rows at once, once a step"


def test_where_nothing_fits_the_run_does_not_begin(told, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda model: 0)
    for dry in (True, False):
        with pytest.raises(OutOfMemoryError, match="not even one row") as error:
            trained(told(output_dir=str(tmp_path / "run"), **ASKED), dry=dry)
        assert (error.value.code, error.value.exit_code) == ("does-not-fit", 8)
        assert "quantise" in error.value.hint
    assert not (tmp_path / "run").exists()


def test_where_memory_is_not_known_the_batch_is_as_given(told, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda model: None)
    (plan,) = trained(told(output_dir=str(tmp_path / "run"), **ASKED), dry=True)
    assert batch(plan.recipe) == (4, 2, False)
    assert plan.picked == "nothing, the batch stays as it is given: the device does not tell what is free"


def test_where_a_step_is_not_known_the_batch_is_as_given(told, tmp_path, monkeypatch):
    def fail(*_):
        raise picking.NotCountedError("the reason")

    monkeypatch.setattr("llmad.budget.usage", fail)
    (plan,) = trained(told(output_dir=str(tmp_path / "run"), **ASKED), dry=True)
    assert (batch(plan.recipe), plan.memory) == ((4, 2, False), "not known: the reason")
    assert plan.picked == "nothing, the batch stays as it is given: what a step takes is not known"


@pytest.fixture
def begun(told, tmp_path, room):
    """A run that has picked two rows at once, and has a checkpoint."""
    room(2, save_steps=1, max_steps=2)
    trained(told(output_dir=str(tmp_path / "run"), save_steps=1, max_steps=2, **ASKED))
    return tmp_path / "run"


@pytest.mark.parametrize("less", [0, 10**12])
def test_a_run_that_is_gone_on_with_keeps_what_was_picked(told, begun, room, monkeypatch, less):
    room(8, less=less)  # now there is more, or nothing at all
    monkeypatch.setattr(picking, "pick", None)
    events = trained(told(output_dir=str(begun), save_steps=1, max_steps=3, **ASKED), resume=begun)
    assert (batch(events[0].recipe), events[0].picked) == ((2, 4, False), "")
    assert [event.step for event in events[1:-1]] == [3]
    assert json.loads((begun / "recipe.json").read_text())["gradient_accumulation_steps"] == 4


def test_a_run_that_is_over_is_neither_picked_for_nor_planned(told, begun, monkeypatch):
    monkeypatch.setattr("llmad.budget.usage", None)
    plan, end = trained(told(output_dir=str(begun), save_steps=1, max_steps=2, **ASKED), resume=begun)
    assert (plan.memory, end.already) == ("none is needed, the run is over", True)


def test_a_run_without_checkpoints_keeps_what_was_picked(told, begun, monkeypatch):
    for path in sorted((begun / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for path in sorted((begun / "adapter").rglob("*")):
        path.unlink()
    (begun / "adapter").rmdir()
    (begun / "metrics.jsonl").unlink()
    monkeypatch.setattr(picking, "pick", None)
    (plan,) = trained(told(output_dir=str(begun), save_steps=1, max_steps=2, **ASKED), resume=begun, dry=True)
    assert batch(plan.recipe) == (2, 4, False)


@pytest.mark.parametrize("change", [
    {"per_device_train_batch_size": 8}, {"gradient_checkpointing": True}, {"auto_find_batch_size": False},
])  # fmt: skip
def test_another_batch_is_another_recipe(told, begun, change):
    recipe = told(output_dir=str(begun), save_steps=1, max_steps=3, **{**ASKED, **change})
    with pytest.raises(ResumeError, match=next(iter(change))):
        trained(recipe, resume=begun)


def test_what_cannot_be_read_is_not_kept(told):
    recipe = told(**ASKED)
    before = recipe.model_dump(mode="json")
    assert kept(recipe, before) == recipe
    for wrong in ({"per_device_train_batch_size": "4"}, {"gradient_checkpointing": None}, {"auto_find_batch_size": 1}):
        assert kept(recipe, {**before, **wrong}) is None
    assert kept(recipe, {}) is None


def test_a_study_refuses_it():
    layers = [("study", {"backbone": "abacus", "task": "arithmetic", "adapters": ["lora", "ia3"], "do_eval": True})]
    assert not load(layers).recipe.auto_find_batch_size
    with pytest.raises(UsageError, match="study: auto_find_batch_size: the runs of a study share"):
        load([*layers, ("study", {"auto_find_batch_size": True})])
