"""What is kept of the steps that a run takes, and what ends them."""

import json

import pytest
import torch

from llmad import pretrained, train
from llmad.errors import DivergedError, StorageError
from llmad.run import train_adapter
from llmad.run_dir import RunDir
from llmad.step import Step


def status(path):
    return json.loads((path / "status.json").read_text())


def test_metrics_have_a_line_a_logged_step(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0].keys() == Step.__dataclass_fields__.keys()


def test_the_base_is_not_changed_by_a_bit(told, tmp_path, monkeypatch):
    kept = {}
    load = pretrained.load

    def remember(*words, **more):
        found = load(*words, **more)
        kept["before"] = {key: value.clone() for key, value in found.model.state_dict().items()}
        kept["model"] = found.model
        return found

    monkeypatch.setattr(pretrained, "load", remember)
    train_adapter(told(output_dir=str(tmp_path / "run")), lambda _: None)
    after = kept["model"].state_dict()
    assert all(torch.equal(after[key], value) for key, value in kept["before"].items())


def test_a_loss_that_is_not_finite_fails_the_run(told, tmp_path, monkeypatch):
    real = train.token_losses
    monkeypatch.setattr(train, "token_losses", lambda *words: real(*words) * torch.nan)
    with pytest.raises(DivergedError, match=r"step 1, .*: loss nan") as error:
        train_adapter(told(output_dir=str(tmp_path / "run")), lambda _: None)
    assert error.value.exit_code == 5
    assert status(tmp_path / "run")["status"] == "failed"
    assert status(tmp_path / "run")["code"] == "diverged"
    assert not (tmp_path / "run" / "adapter").exists()


def test_the_adapter_says_what_it_was_trained_on(trained, folder):
    about = json.loads((trained / "adapter" / "llmad.json").read_text())
    assert (about["backbone"], about["task"]) == (folder, "arithmetic")
    assert about["recipe"] == json.loads((trained / "recipe.json").read_text())
    assert about["prompt"]["question"] == "Question: {instruction}\nAnswer:"


def test_a_disk_that_fails_in_mid_run_is_a_storage_error(told, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDir, "log", full)
    with pytest.raises(StorageError, match="No space left") as error:
        train_adapter(told(output_dir=str(tmp_path / "run")), lambda _: None)
    assert error.value.exit_code == 6
    assert status(tmp_path / "run")["code"] == "cannot-write"
