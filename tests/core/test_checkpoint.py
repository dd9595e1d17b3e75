"""Checkpoints: whole or not there, and checked before they are used."""

import errno
import json
import os
import stat

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import llmad
from llmad import checkpoint
from llmad.adapter_copy import copied
from llmad.errors import ResumeError, StorageError
from llmad.files import sweep
from tests.outage import Killed, outage

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
        return checkpoint.taken(step, copied(model), adam, OFF, {"seed": 0}).write(tmp_path, keep)

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


@pytest.fixture
def put(model, adam, tmp_path):
    """Save in a folder of its own: `put("a", 1)`."""

    def put(folder, step):
        checkpoint.taken(step, copied(model), adam, OFF, {}).write(tmp_path / folder, 1)
        return tmp_path / folder

    return put


def whole(folder, steps):
    """Assert that a folder has a whole checkpoint of one of these steps."""
    found = checkpoint.newest(folder)
    assert found.step in steps
    assert found.skipped == ()
    return found.step


def count(put):
    put("count", 1)
    with outage() as calls:
        put("count", 2)
    assert {"fsync", "rename", "replace", "save_file", "write_bytes", "rmdir", "unlink"} <= set(calls)
    return len(calls)


def test_whatever_call_fails_is_named_and_a_whole_checkpoint_is_left(put):
    errors = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES]
    told = {}
    for number in range(count(put)):
        error = errors[number % len(errors)]
        folder = put(str(number), 1)
        try:
            with outage(number, error):
                put(str(number), 2)
        except StorageError as failure:
            told[failure] = os.strerror(error)
        else:
            whole(folder, {2})
        whole(folder, {1, 2})
    assert len(told) > number * 0.9
    assert all(what in str(failure) and failure.hint and failure.exit_code == 6 for failure, what in told.items())


def test_wherever_it_is_killed_a_whole_checkpoint_is_left(put):
    found = []
    for number in range(count(put)):
        folder = put(str(number), 1)
        with pytest.raises(Killed), outage(number):
            put(str(number), 2)
        found.append(whole(folder, {1, 2}))
        sweep(folder)
        assert {int(path.name[-8:]) for path in folder.iterdir()} - {1} <= {found[-1]}
    assert found == sorted(found)  # there is one call that commits
    assert set(found) == {1, 2}


def test_a_step_is_saved_again_over_a_damaged_one(put, tmp_path):
    folder = put("a", 1)
    (folder / "step-00000001" / "manifest.json").write_text("{")
    for number in range(count(put)):
        with pytest.raises(Killed), outage(number):
            put("a", 1)
        assert (folder / "step-00000001").is_dir()
    put("a", 1)
    whole(folder, {1})


def test_an_older_one_goes_only_after_the_next_is_read_back(put, monkeypatch):
    folder = put("a", 1)

    def spoil(tensors, path):
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, path)

    monkeypatch.setattr(checkpoint, "save_file", spoil)
    with pytest.raises(StorageError, match=r"optimizer.* does not hold what was written: 0\.step"):
        put("a", 2)
    assert [path.name for path in folder.iterdir()] == ["step-00000001"]


def test_later_ones_are_not_counted_among_the_newest(save, tmp_path):
    (tmp_path / "step-00000009").mkdir()
    for step in (1, 2, 3):
        save(step)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["2", "3", "9"]


def test_the_umask_says_who_may_read(put):
    before = os.umask(0o027)
    try:
        folder = put("a", 1)
    finally:
        os.umask(before)
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640)


def test_an_empty_one_with_an_empty_manifest_is_passed_over(save, tmp_path):
    save(1)
    (tmp_path / "step-00000002").mkdir()
    (tmp_path / "step-00000002" / "manifest.json").write_text("{}")
    assert checkpoint.newest(tmp_path).step == 1


def test_the_optimizer_comes_back_bit_for_bit(save, adam, model):
    path = save(1)
    own = [value for _, value in llmad.parameters(model)]
    fresh = torch.optim.AdamW(own, fused=True)
    checkpoint.restore(fresh, OFF, path)
    for parameter in own:
        assert fresh.state[parameter].keys() == adam.state[parameter].keys()
        assert all(torch.equal(fresh.state[parameter][key], value) for key, value in adam.state[parameter].items())


def test_what_is_taken_is_as_it_was_then(model, adam, ids, tmp_path):
    made = checkpoint.taken(1, copied(model), adam, OFF, {})
    held = {name: tensor.clone() for name, tensor in made.optimizer.items()}
    model(ids, labels=ids).loss.backward()
    adam.step()
    found = load_file(made.write(tmp_path, 1) / checkpoint.OPTIMIZER)
    assert all(torch.equal(found[name], held[name]) for name in held)
    checkpoint.taken(2, copied(model), adam, OFF, {}).write(tmp_path, 2)
    assert not torch.equal(load_file(tmp_path / "step-00000002" / checkpoint.OPTIMIZER)["0.exp_avg"], held["0.exp_avg"])


def test_a_parameter_that_nothing_has_reached_has_no_state(model, ids, tmp_path):
    stray = torch.nn.Parameter(torch.zeros(3))
    own = [stray, *(value for _, value in llmad.parameters(model))]
    adam = torch.optim.AdamW(own, fused=True)
    model(ids, labels=ids).loss.backward()
    adam.step()
    fresh = torch.optim.AdamW(own, fused=True)
    checkpoint.restore(fresh, OFF, checkpoint.taken(1, copied(model), adam, OFF, {}).write(tmp_path, 1))
    assert stray not in fresh.state
    assert len(fresh.state) == len(own) - 1


def test_the_optimizer_of_other_parameters_is_refused(save, tiny):
    path = save(1)
    other = llmad.attach(tiny("llama"), "lora[r=2]")
    with pytest.raises(ResumeError, match="belongs to other parameters"):
        checkpoint.restore(torch.optim.AdamW([value for _, value in llmad.parameters(other)]), OFF, path)
    with pytest.raises(ResumeError):
        checkpoint.restore(torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]), OFF, path)
