"""A comparison from end to end: each run as alone, going on after a stop, what is refused before it writes."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmad import compare as comparing
from llmad import report, study
from llmad.compare import Planned, Trained, compare
from llmad.errors import LlmadWarning, ResumeError, StorageError, UsageError
from llmad.exam import Exam
from llmad.lock import locked
from llmad.run import train_adapter
from llmad.scoring import evaluate_adapters
from llmad.stopping import Stopped
from tests.zoo import build

ADAPTERS = {"low": "lora[dropout=0.3]", "after": "series[bottleneck=4]", "virtual": "prompt[num_virtual_tokens=2]"}
SHORT = {"max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1, "learning_rate": 1e-2}


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """Drawing takes longer than all the rest of such short runs."""
    monkeypatch.setattr(report, "plot_loss", lambda _, path: path.write_bytes(b"png"))


@pytest.fixture(scope="session")
def told(folder):
    """A study of short runs: `told(path, adapters=[...])`."""

    def told(path, **more):
        what = {"backbone": folder, "task": "arithmetic", "max_eval_samples": 3, "adapters": ADAPTERS}
        return study.load([("test", {**what, **SHORT, "output_dir": str(path), **more})])

    return told


@pytest.fixture(scope="module")
def done(told, tmp_path_factory):
    """A comparison that is over; tests only read it."""
    path = tmp_path_factory.mktemp("studies") / "done"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report, "plot_loss", lambda _, path: path.write_bytes(b"png"))
        events = []
        found = compare(told(path, seeds=[0, 1]), events.append)
    return path, found, events


def weights(path):
    return load_file(path / "adapter" / "adapter_model.safetensors")


def status(path):
    return json.loads((path / "status.json").read_text())["status"]


def steps(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def left(path):
    """Every file with its bytes, locks aside."""
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def trained(events):
    return {event.run for event in events if isinstance(event, Trained)}


@pytest.mark.parametrize(("name", "seed"), [("low", 0), ("after", 1), ("virtual", 1)])
def test_a_run_ends_as_a_lone_one(done, told, tmp_path, name, seed):
    run = done[0] / f"{name}-seed{seed}"
    entrant = next(one for one in told(tmp_path, seeds=[0, 1]).entrants(tmp_path) if one.name == run.name)
    train_adapter(entrant.recipe, lambda _: None)
    alone = weights(entrant.run.path)
    for key, value in weights(run).items():
        assert torch.allclose(value, alone[key], rtol=1e-4, atol=1e-4 * float(alone[key].abs().max())), key
    losses, own = ([step["loss"] for step in steps(path)] for path in (run, entrant.run.path))
    assert losses == pytest.approx(own, rel=1e-5)
    assert [step["learning_rate"] for step in steps(run)] == [step["learning_rate"] for step in steps(entrant.run.path)]
    told_of = [{**json.loads((path / "recipe.json").read_text()), "output_dir": ""} for path in (run, entrant.run.path)]
    assert told_of[0] == told_of[1]
    card, other = ((path / "README.md").read_text() for path in (run, entrant.run.path))
    assert card == other


def test_every_run_leaves_what_a_lone_one_does(done):
    path, found, _ = done
    runs = [f"{name}-seed{seed}" for name in ADAPTERS for seed in (0, 1)]
    assert {one.name for one in path.iterdir()} == {*runs, "study.json", "comparison.json", "comparison.md"}
    for run in runs:
        assert status(path / run) == "done"
        files = {str(file.relative_to(path / run)) for file in (path / run).rglob("*") if file.is_file()}
        assert files >= {"recipe.json", "metrics.jsonl", "loss.png", "README.md", "evaluation/scores.json"}
        assert files >= {f"checkpoints/step-0000000{step}/manifest.json" for step in (2, 4)}
        assert files >= {"evaluation/arithmetic.jsonl", "evaluation/base-arithmetic.jsonl"}
    assert json.loads((path / "comparison.json").read_text()) == json.loads(json.dumps(found.describe()))
    assert (path / "comparison.md").read_text() == found.markdown()


def test_parameters_and_share_are_those_of_the_lone_card(done):
    path, found, _ = done
    for one in found.standings:
        card = (path / f"{one.adapter}-seed0" / "README.md").read_text()
        assert f"| {one.size.parameters:,} ({one.size.share:.2%}) |" in card


def test_a_run_is_evaluated_as_any_other(done, tmp_path):
    path, found, _ = done
    result = evaluate_adapters([path / "after-seed1"], Exam(limit=3, output=str(tmp_path)), lambda _: None).results[0]
    assert result.score.accuracy == next(one for one in found.standings if one.adapter == "after").accuracies[1]
    answers = (tmp_path / "arithmetic.jsonl").read_text()
    assert answers == (path / "after-seed1" / "evaluation" / "arithmetic.jsonl").read_text()


def test_all_seeds_are_asked_the_same_questions(done):
    asked = {
        tuple(json.loads(line)["instruction"] for line in file.read_text().splitlines())
        for file in done[0].rglob("*arithmetic.jsonl")
    }
    assert len(asked) == 1


def test_a_run_goes_on_alone(done, tmp_path, told):
    path = shutil.copytree(done[0] / "low-seed0", tmp_path / "low")
    entrant = told(done[0], seeds=[0, 1]).entrants(done[0])[0]
    recipe = entrant.recipe.model_copy(update={"output_dir": str(path), "max_steps": 5})
    train_adapter(recipe, lambda _: None, path)
    assert [step["step"] for step in steps(path)] == [1, 2, 3, 4, 5]


def test_what_is_done_is_kept(done, told, tmp_path):
    path, found, _ = done
    copied = shutil.copytree(path, tmp_path / "study")
    before = left(copied)
    again, events = told(copied, seeds=[0, 1]), []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(comparing, "train_together", lambda *_: pytest.fail("trained again"))
        assert [one.accuracies for one in compare(again, events.append).standings] == [
            one.accuracies for one in found.standings
        ]
    assert events[0].kept == {one.name for one in again.entrants(copied)}
    changed = {file for file, content in left(copied).items() if before.get(file) != content}
    assert {Path(file).name for file in changed} <= {"scores.json"}  # how long the answers took


def test_what_is_not_done_starts_anew_and_ends_the_same(done, told, tmp_path):
    copied = shutil.copytree(done[0], tmp_path / "study")
    (copied / "low-seed1" / "status.json").write_text('{"status": "running"}')
    shutil.rmtree(copied / "after-seed0")
    events = []
    compare(told(copied, seeds=[0, 1]), events.append)
    assert trained(events) == {"low-seed1", "after-seed0"}
    for name in trained(events):
        assert status(copied / name) == "done"
        for key, value in weights(done[0] / name).items():
            assert torch.allclose(weights(copied / name)[key], value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "llmad.json"])
def test_a_damaged_adapter_is_told_and_made_anew(done, told, tmp_path, name):
    copied = shutil.copytree(done[0], tmp_path / "study")
    file = copied / "low-seed0" / "adapter" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    events = []
    with pytest.warns(LlmadWarning, match="the run is made anew"):
        compare(told(copied, seeds=[0, 1]), events.append)
    assert trained(events) == {"low-seed0"}


def test_a_run_that_was_made_with_another_recipe_is_not_touched(done, told, tmp_path):
    copied = shutil.copytree(done[0], tmp_path / "study")
    recipe = json.loads((copied / "low-seed0" / "recipe.json").read_text())
    (copied / "low-seed0" / "recipe.json").write_text(json.dumps({**recipe, "max_steps": 99}))
    before = left(copied)
    with pytest.raises(ResumeError, match="max_steps: 99 then, 4 now"):
        compare(told(copied, seeds=[0, 1]), lambda _: None)
    assert left(copied) == before


def test_a_changed_study_is_refused_with_the_differences(done, told):
    before = left(done[0])
    with pytest.raises(ResumeError, match=r"seeds: \[0, 1\] then, \[0\] now") as error:
        compare(told(done[0], seeds=[0]), lambda _: None)
    assert (error.value.code, error.value.exit_code) == ("other-study", 7)
    assert left(done[0]) == before


def test_changed_rows_are_another_study(told, tmp_path):
    rows = [{"instruction": f"Is {n} odd?", "output": "the answer is true", "answer": "true"} for n in range(1, 9, 2)]
    files = study.registry().task("boolq").files
    for split, own in {"train": rows[:3], "test": rows[3:]}.items():
        (tmp_path / files[split]).parent.mkdir(exist_ok=True)
        (tmp_path / files[split]).write_text(json.dumps(own))
    what = {"task": "boolq", "data": str(tmp_path), "adapters": ["lora"], "max_steps": 1}
    compare(told(tmp_path / "study", **what), lambda _: None)
    (tmp_path / files["train"]).write_text(json.dumps(rows[:2]))
    with pytest.raises(ResumeError, match="rows: "):
        compare(told(tmp_path / "study", **what), lambda _: None)


def test_a_signal_lets_the_step_end_and_every_run_be_saved(told, tmp_path):
    def observe(event):
        if isinstance(event, Trained) and event.run == "lora-seed0" and event.step.step == 1:
            signal.raise_signal(signal.SIGTERM)

    told_of = told(tmp_path / "study", adapters=["lora", "series"], save_steps=None)
    with pytest.raises(Stopped) as stop:
        compare(told_of, observe)
    assert stop.value.code == 128 + signal.SIGTERM
    for name in ("lora-seed0", "series-seed0"):
        assert status(tmp_path / "study" / name) == "stopped"
        assert [one.name for one in (tmp_path / "study" / name / "checkpoints").iterdir()] == ["step-00000002"]
    assert not list((tmp_path / "study").rglob(".lock"))
    compare(told_of, lambda _: None)
    assert status(tmp_path / "study" / "lora-seed0") == "done"


def test_fewer_at_once_end_the_same(done, told, tmp_path):
    events = []
    compare(told(tmp_path / "study", seeds=[0]), events.append, together=2)
    assert [event.run for event in events if isinstance(event, Trained)][-1] == "virtual-seed0"
    for name in ("low-seed0", "after-seed0", "virtual-seed0"):
        for key, value in weights(done[0] / name).items():
            there = weights(tmp_path / "study" / name)[key]
            assert torch.allclose(there, value, rtol=1e-4, atol=1e-4 * float(value.abs().max())), key


def test_a_dry_run_writes_nothing(told, tmp_path):
    events = []
    assert compare(told(tmp_path / "study"), events.append, dry=True) is None
    assert list(tmp_path.iterdir()) == []
    (planned,) = events
    assert isinstance(planned, Planned)
    rows = json.loads(json.dumps(planned.describe()))["runs"]
    assert [row["run"] for row in rows] == ["low-seed0", "after-seed0", "virtual-seed0"]
    assert all(row["parameters"] > 0 and row["placement"] for row in rows)


def test_adapters_at_experts_are_refused_before_anything_is_written(told, tmp_path, folder):
    mixture = tmp_path / "mixture"
    shutil.copytree(folder, mixture)
    build("mixtral").save_pretrained(mixture)
    what = {"backbone": str(mixture), "adapters": {"a": "lora[sites=expert.up]", "b": "lora"}, "max_steps": 1}
    with pytest.raises(UsageError, match=r"'a' sits at .* cannot be trained with others") as error:
        compare(told(tmp_path / "study", **what), lambda _: None)
    assert (error.value.code, error.value.hint) == ("not-by-row", "give --together 1")
    assert not (tmp_path / "study").exists()


def test_a_study_in_use_is_refused(done, told):
    with locked(done[0]), pytest.raises(StorageError, match="in use"):
        compare(told(done[0], seeds=[0, 1]), lambda _: None)
