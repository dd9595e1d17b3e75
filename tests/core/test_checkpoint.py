"""Checkpoints: whole or not there, and checked before they are used."""

import json
import os
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmad
from llmad import checkpoint
from llmad.errors import ResumeError, StorageError

OFF = torch.amp.GradScaler("cpu", enabled=False)
FILES = ["adapter_config.json", "adapter_model.safetensors", "cursor.json", "llmad.json", "optimizer.safetensors"]


@pytest.fixture
def model(llama, ids):
    """A model with an adapter that has made one step."""
    llmad.attach(llama, "lora")
    return llama


@pytest.fixture
def adam(model, ids):
    made = torch.optim.AdamW([value for _, value in llmad.parameters(model)], fused=True)
    model(ids, labels=ids).loss.backward()
    made.step()
    return made


@pytest.fixture
def save(model, adam, tmp_path):
    def save(step, keep=2):
        return checkpoint.save(tmp_path, step, partial(llmad.save, model), adam, OFF, {"seed": 0}, keep)

    return save


def test_a_checkpoint_has_its_files_and_their_sums(save):
    path = save(3)
    assert sorted(file.name for file in path.iterdir()) == sorted([*FILES, "manifest.json"])
    assert sorted(json.loads((path / "manifest.json").read_text())) == FILES


def test_the_newest_is_found_with_its_step_and_recipe(save, tmp_path):
    save(9)
    path = save(10)
    assert checkpoint.newest(tmp_path) == checkpoint.Found(path, 10, {"seed": 0}, ())


def test_none_is_found_where_none_was_written(tmp_path):
    assert checkpoint.newest(tmp_path / "checkpoints") is None


def test_only_the_newest_are_kept(save, tmp_path):
    for step in (1, 2, 3, 10):
        save(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_one_that_lacks_a_file_is_passed_over_and_named(save, tmp_path, name):
    save(1)
    (save(2) / name).unlink()
    found = checkpoint.newest(tmp_path)
    assert found.step == 1
    assert found.skipped[0].startswith("step-00000002: ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(place=st.floats(0, 0.999), bit=st.integers(0, 7), name=st.sampled_from([*FILES, "manifest.json"]))
def test_one_with_a_flipped_bit_is_passed_over(save, tmp_path, place, bit, name):
    save(1)
    file = save(2) / name
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    file.write_bytes(content)
    assert checkpoint.newest(tmp_path).step == 1


@pytest.mark.parametrize("manifest", ["", "{}", "[]", "3"])
def test_one_with_another_manifest_is_passed_over(save, tmp_path, manifest):
    save(1)
    (save(2) / "manifest.json").write_text(manifest)
    assert checkpoint.newest(tmp_path).step == 1


def test_none_but_damaged_ones_are_refused(save, tmp_path):
    (save(1) / "manifest.json").unlink()
    with pytest.raises(StorageError, match="holds no whole checkpoint: step-00000001"):
        checkpoint.newest(tmp_path)


def test_one_that_was_not_finished_is_not_seen_and_gives_way(save, tmp_path):
    (tmp_path / ".step-00000001.partial").mkdir()
    (tmp_path / ".step-00000001.partial" / "llmad.json").write_text("{")
    assert checkpoint.newest(tmp_path) is None
    save(1)
    assert checkpoint.newest(tmp_path).step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize(("owner", "name"), [(checkpoint.Path, "rename"), (os, "fsync")])
def test_a_failed_write_leaves_the_older_ones(save, tmp_path, monkeypatch, owner, name):
    def full(*_):
        raise OSError(28, "No space left on device")

    save(1, keep=1)
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(StorageError, match="No space left"):
        save(2, keep=1)
    assert checkpoint.newest(tmp_path).step == 1


def test_the_optimizer_comes_back_bit_for_bit(save, adam, model):
    path = save(1)
    own = [value for _, value in llmad.parameters(model)]
    fresh = torch.optim.AdamW(own, fused=True)
    checkpoint.restore(fresh, OFF, path)
    for parameter in own:
        assert fresh.state[parameter].keys() == adam.state[parameter].keys()
        assert all(torch.equal(fresh.state[parameter][key], value) for key, value in adam.state[parameter].items())


def test_a_parameter_that_nothing_has_reached_has_no_state(model, ids, tmp_path):
    stray = torch.nn.Parameter(torch.zeros(3))
    own = [stray, *(value for _, value in llmad.parameters(model))]
    adam = torch.optim.AdamW(own, fused=True)
    model(ids, labels=ids).loss.backward()
    adam.step()
    fresh = torch.optim.AdamW(own, fused=True)
    checkpoint.restore(fresh, OFF, checkpoint.save(tmp_path, 1, partial(llmad.save, model), adam, OFF, {}, 1))
    assert stray not in fresh.state
    assert len(fresh.state) == len(own) - 1


def test_the_optimizer_of_other_parameters_is_refused(save, tiny):
    path = save(1)
    other = llmad.attach(tiny("llama"), "lora[r=2]")
    with pytest.raises(ResumeError, match="belongs to other parameters"):
        checkpoint.restore(torch.optim.AdamW([value for _, value in llmad.parameters(other)]), OFF, path)
    with pytest.raises(ResumeError):
        checkpoint.restore(torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]), OFF, path)
