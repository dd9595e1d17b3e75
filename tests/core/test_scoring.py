"""Trained adapters scored on one base."""

import json
import shutil
from pathlib import Path

import pytest

from llmad import scoring
from llmad.errors import DataError, ModelError, StorageError, UsageError
from llmad.scoring import evaluate_adapters

MATH = Path(__file__).parents[2].parent / "shared" / "data" / "math"


def quiet(_):
    pass


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a run that may be written."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def two(run, tmp_path):
    """Two runs whose adapters differ in their names only."""
    return [run, shutil.copytree(run, tmp_path / "other")]


def change(run, **values):
    about = run / "adapter" / "llmad.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | values))


def test_answers_and_scores_go_to_the_run_directory(run):
    shutil.rmtree(run / "evaluation")
    found = evaluate_adapters([run], quiet, limit=2)
    lines = (run / "evaluation" / "arithmetic.jsonl").read_text().splitlines()
    assert len(lines) == 2
    scores = json.loads((run / "evaluation" / "scores.json").read_text())
    assert scores["scores"] == [{"who": "adapter", "protocol": "strict", **found.scores[0][1].describe()}]


def test_scores_of_another_protocol_or_model_stay(run):
    before = json.loads((run / "evaluation" / "scores.json").read_text())["scores"]
    evaluate_adapters([run], quiet, limit=2, protocol="paper")
    after = json.loads((run / "evaluation" / "scores.json").read_text())["scores"]
    assert after[: len(before)] == before
    assert [score["protocol"] for score in after[len(before) :]] == ["paper"]


def test_the_adapter_directory_stands_for_its_run(run):
    shutil.rmtree(run / "evaluation")
    evaluate_adapters([run / "adapter"], quiet, limit=1)
    assert (run / "evaluation" / "scores.json").is_file()


def test_the_adapter_scores_as_it_did_at_the_end_of_training(trained, tmp_path):
    asked = [json.loads(line) for line in (trained / "evaluation/arithmetic.jsonl").read_text().splitlines()]
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"instruction": row["instruction"], "answer": row["answer"]} for row in asked]))
    evaluate_adapters([trained], quiet, source=str(rows), output=tmp_path)
    again = [json.loads(line) for line in (tmp_path / "arithmetic.jsonl").read_text().splitlines()]
    assert [row["output_pred"] for row in again] == [row["output_pred"] for row in asked]


def test_several_adapters_are_scored_on_one_base(two, monkeypatch):
    loads = []
    real = scoring.pretrained.load
    monkeypatch.setattr(scoring.pretrained, "load", lambda *words, **more: loads.append(words) or real(*words, **more))
    found = evaluate_adapters(two, quiet, limit=2)
    assert len(loads) == 1
    assert [who for who, _ in found.scores] == [str(run) for run in two]
    assert len({score.correct for _, score in found.scores}) == 1
    assert found.describe()["adapter"] == [str(run) for run in two]
    assert [row["adapter"] for row in found.describe()["results"]] == [str(run) for run in two]


def test_several_adapters_do_not_overwrite_each_other_in_one_output(two, tmp_path):
    evaluate_adapters(two, quiet, limit=1, output=tmp_path / "out")
    assert {path.parent.name for path in (tmp_path / "out").rglob("arithmetic.jsonl")} == {"run", "other"}


def test_adapters_of_one_name_are_numbered_in_one_output(run, tmp_path):
    twin = shutil.copytree(run, tmp_path / "deeper" / "run")
    evaluate_adapters([run, twin], quiet, limit=1, output=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"1-run", "2-run"}


def test_several_tasks_are_scored(run, tmp_path):
    for name in ("SVAMP", "AQuA"):
        (tmp_path / name).mkdir()
        answer = "B" if name == "AQuA" else "2"
        (tmp_path / name / "test.json").write_text(json.dumps([{"instruction": "1 + 1?", "answer": answer}] * 3))
    found = evaluate_adapters([run], quiet, tasks=["svamp", "aqua"], source=str(tmp_path), limit=2)
    assert [(score.task, score.n) for _, score in found.scores] == [("svamp", 2), ("aqua", 2)]
    assert {path.name for path in (run / "evaluation").iterdir()} >= {"svamp.jsonl", "aqua.jsonl"}


@pytest.mark.skipif(not MATH.is_dir(), reason=f"the math sets are not at {MATH}")
def test_the_math_sets_are_read_and_scored(run):
    names = ["aqua", "svamp"]
    found = evaluate_adapters([run], quiet, tasks=names, source=str(MATH), limit=1)
    assert [(score.task, score.n) for _, score in found.scores] == [(name, 1) for name in names]


def test_the_prompt_is_the_one_that_the_adapter_was_trained_with(run, monkeypatch):
    change(run, prompt={"question": "Q {instruction}"})
    asked = []
    real = scoring.score
    monkeypatch.setattr(scoring, "score", lambda *words: asked.append(words[4]) or real(*words))
    evaluate_adapters([run], quiet, limit=1)
    assert [prompt.question for prompt in asked] == ["Q {instruction}"]


@pytest.mark.parametrize("prompt", [{"ask": "?"}, "?"])
def test_a_record_that_is_no_prompt_is_refused(run, prompt):
    change(run, prompt=prompt)
    with pytest.raises(ModelError, match="'prompt' is no prompt"):
        evaluate_adapters([run], quiet, limit=1)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is no adapter directory"):
        evaluate_adapters([tmp_path], quiet)


def test_adapters_of_two_backbones_are_refused(two):
    change(two[0], backbone="other")
    with pytest.raises(UsageError, match="do not name one backbone"):
        evaluate_adapters(two, quiet)


def test_rows_are_checked_before_a_model_is_loaded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring.pretrained, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(DataError):
        evaluate_adapters([run], quiet, source=str(tmp_path / "missing.json"))


def test_an_output_that_cannot_be_made_is_refused_before_a_model_is_loaded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring.pretrained, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is in the way"):
        evaluate_adapters([run], quiet, limit=1, output=tmp_path / "file")


def test_an_adapter_that_names_no_task_needs_one(run):
    about = run / "adapter" / "llmad.json"
    record = json.loads(about.read_text())
    del record["task"]
    about.write_text(json.dumps(record))
    with pytest.raises(ModelError, match="which task"):
        evaluate_adapters([run], quiet)
