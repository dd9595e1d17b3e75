"""Trained adapters scored on one base."""

import json
import shutil
from pathlib import Path

import pytest

from llmad import scoring
from llmad.errors import DataError, LlmadWarning, ModelError, StorageError, UsageError
from llmad.exam import Exam
from llmad.prompt import Prompt
from llmad.scoring import evaluate_adapters

MATH = Path(__file__).parents[2].parent / "shared" / "data" / "math"


def evaluate(folders, **told):
    return evaluate_adapters(folders, Exam(**told), lambda _: None)


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
    found = evaluate([run], limit=2)
    lines = (run / "evaluation" / "arithmetic.jsonl").read_text().splitlines()
    assert len(lines) == 2
    scores = json.loads((run / "evaluation" / "scores.json").read_text())
    assert [(score["who"], score["protocol"], score["n"]) for score in scores["scores"]] == [
        ("base", "strict", 2),
        ("adapter", "strict", 2),
    ]
    assert [score["accuracy"] for score in scores["scores"]] == [row.score.accuracy for row in found.results[::-1]]


@pytest.mark.parametrize("content", ["{", "[]", '{"scores": [{}]}', "[" * 9999])
def test_a_list_of_scores_that_cannot_be_read_is_put_aside(run, content):
    file = run / "evaluation" / "scores.json"
    file.write_text(content)
    with pytest.warns(LlmadWarning, match="kept as scores.json.damaged"):
        evaluate([run], limit=2)
    assert file.with_name("scores.json.damaged").read_text() == content
    assert [score["who"] for score in json.loads(file.read_text())["scores"]] == ["base", "adapter"]


def test_scores_of_another_protocol_or_model_stay(run):
    before = json.loads((run / "evaluation" / "scores.json").read_text())["scores"]
    evaluate([run], limit=2, protocol="paper")
    after = json.loads((run / "evaluation" / "scores.json").read_text())["scores"]
    assert after[: len(before)] == before
    assert [(score["who"], score["protocol"]) for score in after[len(before) :]] == [
        ("base", "paper"),
        ("adapter", "paper"),
    ]


def test_the_adapter_directory_stands_for_its_run(run):
    shutil.rmtree(run / "evaluation")
    evaluate([run / "adapter"], limit=1)
    assert (run / "evaluation" / "scores.json").is_file()


def test_the_adapter_scores_as_it_did_at_the_end_of_training(trained, tmp_path):
    asked = [json.loads(line) for line in (trained / "evaluation/arithmetic.jsonl").read_text().splitlines()]
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"instruction": row["instruction"], "answer": row["answer"]} for row in asked]))
    evaluate([trained], data=str(rows), output=str(tmp_path))
    again = [json.loads(line) for line in (tmp_path / "arithmetic.jsonl").read_text().splitlines()]
    assert [row["output_pred"] for row in again] == [row["output_pred"] for row in asked]


def test_several_adapters_are_scored_on_one_base(two, monkeypatch):
    loads = []
    real = scoring.pretrained.load
    monkeypatch.setattr(scoring.pretrained, "load", lambda *words, **more: loads.append(words) or real(*words, **more))
    found = evaluate(two, limit=2)
    assert len(loads) == 1
    assert [result.sheet.label for result in found.results] == [*(str(run) for run in two), "base"]
    assert len({result.score.correct for result in found.results[:2]}) == 1
    assert found.describe()["adapter"] == [str(run) for run in two]
    assert [row["adapter"] for row in found.describe()["results"]] == [*(str(run) for run in two), "base"]


def test_several_adapters_do_not_overwrite_each_other_in_one_output(two, tmp_path):
    evaluate(two, limit=1, output=str(tmp_path / "out"))
    assert {path.parent.name for path in (tmp_path / "out").rglob("arithmetic.jsonl")} == {"run", "other"}


def test_adapters_of_one_name_are_numbered_in_one_output(run, tmp_path):
    twin = shutil.copytree(run, tmp_path / "deeper" / "run")
    evaluate([run, twin], limit=1, output=str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"1-run", "2-run"}


def test_several_tasks_are_scored(run, tmp_path):
    for name in ("SVAMP", "AQuA"):
        (tmp_path / name).mkdir()
        answer = "B" if name == "AQuA" else "2"
        (tmp_path / name / "test.json").write_text(json.dumps([{"instruction": "1 + 1?", "answer": answer}] * 3))
    found = evaluate([run], task=["svamp", "aqua"], data=str(tmp_path), limit=2)
    assert [(row.score.task, row.score.n) for row in found.results if row.sheet.who] == [("svamp", 2), ("aqua", 2)]
    assert {path.name for path in (run / "evaluation").iterdir()} >= {"svamp.jsonl", "aqua.jsonl"}


@pytest.mark.skipif(not MATH.is_dir(), reason=f"the math sets are not at {MATH}")
def test_the_math_sets_are_read_and_scored(run):
    names = ["aqua", "svamp"]
    with pytest.warns(LlmadWarning, match="1 questions of aqua are longer"):
        found = evaluate([run], task=names, data=str(MATH), limit=1)
    assert [(row.score.task, row.score.n) for row in found.results if row.sheet.who] == [(name, 1) for name in names]


def test_the_prompt_is_the_one_that_the_adapter_was_trained_with(run):
    change(run, prompt={"question": "Q {instruction}"}, prompt_fingerprint=None)
    found = evaluate([run], limit=1)
    assert [result.sheet.prompt for result in found.results] == [Prompt("Q {instruction}")] * 2


def test_a_prompt_that_was_changed_is_refused_unless_another_is_named(run):
    change(run, prompt={"question": "Q {instruction}"})
    with pytest.raises(ModelError, match="fingerprint differs") as error:
        evaluate([run], limit=1)
    assert "--prompt" in error.value.hint
    found = evaluate([run], limit=1, prompt="verbatim")
    assert {result.sheet.prompt.question for result in found.results} == {"{instruction}"}


@pytest.mark.parametrize("prompt", [{"ask": "?"}, "?"])
def test_a_record_that_is_no_prompt_is_refused(run, prompt):
    change(run, prompt=prompt)
    with pytest.raises(ModelError, match="'prompt'"):
        evaluate([run], limit=1)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is no adapter directory"):
        evaluate([tmp_path])


def test_adapters_of_two_backbones_are_refused(two):
    change(two[0], backbone="other")
    with pytest.raises(UsageError, match="do not name one backbone"):
        evaluate(two)


def test_rows_are_checked_before_a_model_is_loaded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring.pretrained, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(DataError):
        evaluate([run], data=str(tmp_path / "missing.json"))


def test_an_output_that_cannot_be_made_is_refused_before_a_model_is_loaded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring.pretrained, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is in the way"):
        evaluate([run], limit=1, output=str(tmp_path / "file"))


def test_an_adapter_that_names_no_task_needs_one(run):
    about = run / "adapter" / "llmad.json"
    record = json.loads(about.read_text())
    del record["task"]
    about.write_text(json.dumps(record))
    with pytest.raises(ModelError, match="which task"):
        evaluate([run])
