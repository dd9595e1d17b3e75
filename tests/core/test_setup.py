"""Setting up a run: what is refused, left out and chosen before the first step."""

import json

import pytest

from llmad import packing
from llmad.errors import ResumeError, UsageError
from llmad.run import train_adapter
from llmad.setup import set_up


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


def test_a_run_that_was_packed_does_not_go_on_padded(told, tmp_path, monkeypatch):
    recipe = told(output_dir=str(tmp_path / "run"), max_steps=2)
    train_adapter(recipe, lambda _: None)
    monkeypatch.setattr(packing, "way", lambda _: None)
    with pytest.raises(ResumeError, match=r"batching: 'packed \(rows\)' then, 'padded' now") as error:
        train_adapter(recipe, lambda _: None, tmp_path / "run")
    assert error.value.exit_code == 7
