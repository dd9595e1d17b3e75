"""A training run from end to end, and going on with it after it was stopped."""

import json
import shutil

import pytest
import torch

import llmad
from llmad import pretrained, train
from llmad.asking import Scoring
from llmad.attachment import state
from llmad.errors import OutOfMemoryError, ResumeError, StorageError, UsageError
from llmad.run import Finished, Prepared, train_adapter
from llmad.step import Step

DROPOUT = "lora[dropout=0.3]"


class StopError(Exception):
    pass


def stop_after(last):
    def observe(event):
        if isinstance(event, Step) and event.step == last:
            raise StopError

    return observe


def steps_of(recipe, resume=None):
    seen = []
    train_adapter(recipe, lambda event: seen.append(event.step) if isinstance(event, Step) else None, resume)
    return seen


def tensors(path):
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.safetensors"))}


def status(path):
    return json.loads((path / "status.json").read_text())


def test_a_run_leaves_every_file_that_is_documented(trained):
    found = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    adapter = {"adapter_config.json", "adapter_model.safetensors", "llmad.json"}
    assert found >= {"recipe.json", "metrics.jsonl", "loss.png", "README.md", "status.json", "evaluation/scores.json"}
    assert found >= {f"adapter/{name}" for name in adapter}
    assert found >= {"evaluation/base-arithmetic.jsonl", "evaluation/arithmetic.jsonl"}
    checkpoint = adapter | {"optimizer.safetensors", "cursor.json", "manifest.json"}
    steps = ("step-00000002", "step-00000004")
    assert {name for name in found if "checkpoints" in name} == {
        f"checkpoints/{step}/{name}" for step in steps for name in checkpoint
    }
    assert status(trained) == {"status": "done"}


def test_answers_have_a_line_a_row_with_the_documented_keys(trained):
    lines = [json.loads(line) for line in (trained / "evaluation/arithmetic.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2]
    keys = {"task", "index", "instruction", "output_pred", "prediction", "answer", "correct", "tokens"}
    assert all(line.keys() == keys for line in lines)


def test_events_come_in_order(told, tmp_path):
    events = []
    more = {"data": None, "max_steps": 2, "do_eval": True, "max_eval_samples": 2}
    train_adapter(told(output_dir=str(tmp_path / "run"), **more), events.append)
    assert [type(event) for event in events] == [Prepared, Step, Step, *[Scoring] * 4, Finished]
    assert [event.who for event in events if isinstance(event, Scoring)] == ["base", "base", "adapter", "adapter"]


def test_a_dry_run_writes_nothing(told, tmp_path):
    events = []
    train_adapter(told(output_dir=str(tmp_path / "run")), events.append, dry=True)
    assert [type(event) for event in events] == [Prepared]
    assert list(tmp_path.iterdir()) == []


def test_the_same_recipe_gives_the_same_adapter(told, tmp_path):
    for name in "ab":
        train_adapter(told(output_dir=str(tmp_path / name), adapter=DROPOUT), lambda _: None)
    assert tensors(tmp_path / "a" / "adapter") == tensors(tmp_path / "b" / "adapter")


def test_another_seed_gives_another_adapter(told, tmp_path):
    for seed in (1, 2):
        train_adapter(told(output_dir=str(tmp_path / str(seed)), seed=seed, max_steps=1), lambda _: None)
    assert tensors(tmp_path / "1" / "adapter") != tensors(tmp_path / "2" / "adapter")


@pytest.fixture
def stopped(told, tmp_path):
    """A run with dropout that was stopped after step 5 of 6, with checkpoints after 2 and 4."""
    recipe = told(output_dir=str(tmp_path / "run"), adapter=DROPOUT, max_steps=6, save_steps=2)
    with pytest.raises(StopError):
        train_adapter(recipe, stop_after(5))
    return recipe, tmp_path / "run"


@pytest.fixture(scope="module")
def straight(told, tmp_path_factory):
    """The same run, never stopped."""
    path = tmp_path_factory.mktemp("straight") / "run"
    recipe = told(output_dir=str(path), adapter=DROPOUT, max_steps=6, save_steps=2)
    train_adapter(recipe, lambda _: None)
    return path


def test_a_stopped_run_says_so(stopped):
    assert status(stopped[1]) == {"status": "failed", "code": "StopError", "message": ""}


def test_a_resumed_run_ends_bitwise_like_one_that_was_never_stopped(stopped, straight):
    recipe, path = stopped
    assert steps_of(recipe, path) == [5, 6]
    last = "checkpoints/step-00000006"
    assert tensors(path / last) == tensors(straight / last)
    assert tensors(path / "adapter") == tensors(straight / "adapter")
    assert status(path) == {"status": "done"}


def test_a_resumed_run_has_each_step_once_in_its_metrics(stopped):
    recipe, path = stopped
    steps_of(recipe, path)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_a_half_written_line_of_metrics_does_not_stop_a_resume(stopped):
    recipe, path = stopped
    with (path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')
    assert steps_of(recipe, path) == [5, 6]


def test_a_resume_passes_over_a_damaged_checkpoint_and_names_it(stopped, straight):
    recipe, path = stopped
    weights = path / "checkpoints" / "step-00000004" / "adapter_model.safetensors"
    flipped = bytearray(weights.read_bytes())
    flipped[-1] ^= 1
    weights.write_bytes(flipped)
    events = []
    train_adapter(recipe, events.append, path)
    assert events[0].done == 2
    assert events[0].skipped == ("step-00000004: adapter_model.safetensors does not agree with its sum",)
    assert tensors(path / "adapter") == tensors(straight / "adapter")


def test_a_resume_with_nothing_but_damaged_checkpoints_is_refused(stopped):
    recipe, path = stopped
    for manifest in path.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{")
    with pytest.raises(StorageError, match=r"step-00000004.*step-00000002"):
        train_adapter(recipe, lambda _: None, path)


def test_a_resume_before_the_first_checkpoint_starts_again(told, tmp_path, straight):
    recipe = told(output_dir=str(tmp_path / "run"), adapter=DROPOUT, max_steps=6, save_steps=2)
    with pytest.raises(StopError):
        train_adapter(recipe, stop_after(1))
    assert steps_of(recipe, tmp_path / "run") == [1, 2, 3, 4, 5, 6]
    assert tensors(tmp_path / "run" / "adapter") == tensors(straight / "adapter")


def test_a_resume_whose_checkpoints_are_gone_is_refused(stopped):
    recipe, path = stopped
    shutil.rmtree(path / "checkpoints")
    with pytest.raises(StorageError, match="has saved checkpoints") as error:
        train_adapter(recipe, lambda _: None, path)
    assert error.value.code == "no-checkpoints"
    assert status(path)["status"] == "failed"


@pytest.mark.parametrize("quantizer", ["int8", "nf4"])
@pytest.mark.parametrize("adapter", [DROPOUT, "dora", "prefix[num_virtual_tokens=2]"])
def test_a_run_on_a_quantised_base_resumes_bitwise(told, tmp_path, quantizer, adapter):
    def recipe(name):
        return told(output_dir=str(tmp_path / name), adapter=adapter, quantize=quantizer, max_steps=4, save_steps=2)

    train_adapter(recipe("straight"), lambda _: None)
    with pytest.raises(StopError):
        train_adapter(recipe("run"), stop_after(3))
    assert steps_of(recipe("run"), tmp_path / "run") == [3, 4]
    for part in ("checkpoints/step-00000004", "adapter"):
        assert tensors(tmp_path / "run" / part) == tensors(tmp_path / "straight" / part)
    assert f"| base quantised as | {quantizer}&#91;" in (tmp_path / "run" / "README.md").read_text()


def test_a_resume_on_another_quantization_is_refused(trained, told):
    with pytest.raises(ResumeError, match="quantize: None then, 'nf4' now"):
        train_adapter(told(data=None, gradient_accumulation_steps=2, quantize="nf4"), lambda _: None, trained)


def test_a_finished_run_trains_no_step_more(trained, told, tmp_path):
    path = shutil.copytree(trained, tmp_path / "run")
    before = tensors(path / "adapter")
    recipe = told(data=None, gradient_accumulation_steps=2)
    assert steps_of(recipe, path) == []
    assert tensors(path / "adapter") == before
    assert status(path) == {"status": "done"}


@pytest.mark.parametrize(
    ("change", "told_of"),
    [({"seed": 1}, "seed: 0 then, 1 now"), ({"adapter": "lora[r=4]"}, r"adapter: 'lora' then, 'lora\[r=4\]' now")],
)
def test_a_resume_with_another_recipe_is_refused_with_the_differences(trained, told, change, told_of):
    with pytest.raises(ResumeError, match=told_of) as error:
        train_adapter(told(**{"data": None, "gradient_accumulation_steps": 2, **change}), lambda _: None, trained)
    assert error.value.exit_code == 7


def test_a_resume_with_other_rows_in_the_same_file_is_refused(told, tmp_path):
    data = tmp_path / "rows.json"
    data.write_text(json.dumps([{"instruction": "1 + 1?", "output": "2"}] * 4))
    recipe = told(data=str(data), output_dir=str(tmp_path / "run"), max_steps=1)
    train_adapter(recipe, lambda _: None)
    data.write_text(json.dumps([{"instruction": "1 + 1?", "output": "3"}] * 4))
    with pytest.raises(ResumeError, match=r"rows: '\w{16}' then"):
        train_adapter(recipe, lambda _: None, tmp_path / "run")


def test_a_resume_may_go_on_for_longer(trained, told, tmp_path):
    path = shutil.copytree(trained, tmp_path / "run")
    assert steps_of(told(data=None, gradient_accumulation_steps=2, max_steps=6), path) == [5, 6]


def test_a_directory_that_is_taken_is_refused(trained, told):
    with pytest.raises(UsageError, match="is not empty"):
        train_adapter(told(output_dir=str(trained)), lambda _: None)


def test_a_batch_that_does_not_fit_is_an_error_with_its_cure(told, tmp_path, monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB")

    monkeypatch.setattr(train, "token_losses", short)
    with pytest.raises(OutOfMemoryError, match=r"Tried to allocate 9 GiB") as error:
        train_adapter(told(output_dir=str(tmp_path / "run")), lambda _: None)
    assert error.value.exit_code == 8
    assert "per_device_train_batch_size" in error.value.hint
    assert status(tmp_path / "run")["code"] == "out-of-memory"


@pytest.fixture
def built(told, tmp_path):
    """A series adapter `a`, and a LoRA that was trained on top of it."""
    train_adapter(told(output_dir=str(tmp_path / "a"), adapter="series"), lambda _: None)
    recipe = told(output_dir=str(tmp_path / "b"), frozen={"a": str(tmp_path / "a")}, save_steps=2)
    train_adapter(recipe, lambda _: None)
    return recipe


def attached_by(folder, place):
    """The tensors of every adapter that a directory brings along."""
    model = pretrained.load(folder).model
    llmad.load(model, place)
    return {name: [tensor.clone() for _, tensor in llmad.parameters(model, name)] for name in state(model).adapters}


def test_an_adapter_brings_along_what_it_was_built_on(built, tmp_path, folder):
    there = tensors(tmp_path / "a" / "adapter")
    shutil.rmtree(tmp_path / "a")  # the copy does
    places = [tmp_path / "b" / "adapter", *(tmp_path / "b" / "checkpoints").iterdir()]
    assert len(places) == 3
    for place in places:
        assert tensors(place / "built_on" / "a") == there
        assert list(attached_by(folder, place)) == ["a", "default"]
    assert "built on" in (tmp_path / "b" / "README.md").read_text()


def test_a_run_that_is_built_on_another_goes_on_from_its_own_copy(built, told, tmp_path):
    straight = tensors(tmp_path / "b" / "adapter")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "step-00000004")
    train_adapter(told(output_dir=str(tmp_path / "a2"), adapter="series", seed=5), lambda _: None)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a2").rename(tmp_path / "a")  # another adapter in the old place
    assert steps_of(built, tmp_path / "b") == [3, 4]
    assert tensors(tmp_path / "b" / "adapter") == straight


def test_what_is_built_on_what_is_built_on_another_brings_both(built, told, tmp_path, folder):
    recipe = told(output_dir=str(tmp_path / "c"), frozen={"b": str(tmp_path / "b")}, adapter="ia3")
    train_adapter(recipe, lambda _: None)
    assert list(attached_by(folder, tmp_path / "c" / "adapter")) == ["a", "b", "default"]


def test_a_run_does_not_go_on_in_another_order_of_what_it_is_built_on(told, tmp_path):
    for name in "ab":
        train_adapter(told(output_dir=str(tmp_path / name)), lambda _: None)
    frozen = {name: str(tmp_path / name) for name in "ab"}
    train_adapter(told(output_dir=str(tmp_path / "c"), frozen=frozen), lambda _: None)
    turned = told(output_dir=str(tmp_path / "c"), frozen=dict(reversed(frozen.items())), max_steps=6)
    with pytest.raises(ResumeError, match="frozen"):
        train_adapter(turned, lambda _: None, tmp_path / "c")


def test_a_copy_that_is_missing_leaves_the_model_alone(built, tmp_path, folder):
    shutil.rmtree(tmp_path / "b" / "adapter" / "built_on")
    model = pretrained.load(folder).model
    with pytest.raises(llmad.ModelError, match="built_on/a is no adapter directory"):
        llmad.load(model, tmp_path / "b" / "adapter")
    assert not state(model).adapters


def test_an_adapter_that_is_broken_leaves_nothing_of_what_it_was_built_on(built, tmp_path, folder):
    (tmp_path / "b" / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    model = pretrained.load(folder).model
    with pytest.raises(llmad.ModelError, match="too few for its header"):
        llmad.load(model, tmp_path / "b" / "adapter")
    assert not state(model).adapters


def test_a_float16_run_that_was_stopped_goes_on_bit_for_bit(told, tmp_path):
    how = {"dtype": "float16", "adapter": DROPOUT, "max_steps": 6}
    train_adapter(told(output_dir=str(tmp_path / "straight"), **how), lambda _: None)
    recipe = told(output_dir=str(tmp_path / "stopped"), save_steps=3, **how)
    with pytest.raises(StopError):
        train_adapter(recipe, stop_after(4))
    cursor = json.loads((tmp_path / "stopped" / "checkpoints" / "step-00000003" / "cursor.json").read_text())
    assert cursor["scaler"]["scale"] >= 1024
    assert steps_of(recipe, tmp_path / "stopped") == [4, 5, 6]
    assert tensors(tmp_path / "stopped" / "adapter") == tensors(tmp_path / "straight" / "adapter")


def test_the_largest_seed_trains(told, tmp_path):
    train_adapter(told(max_steps=1, seed=(1 << 63) - 1, output_dir=str(tmp_path / "run")), lambda _: None)
    assert (tmp_path / "run" / "adapter").is_dir()
