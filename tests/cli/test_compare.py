"""`llmad compare`: the plan, the table, JSON, going on, and what is refused."""

import io
import json
import sys

import pytest

from llmad import pretrained, report
from llmad_cli import train


@pytest.fixture
def no_model(monkeypatch):
    """Fail where a model is loaded."""
    monkeypatch.setattr(pretrained, "load", lambda *_: pytest.fail("a model was loaded"))


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """Drawing takes longer than all the rest of such short runs."""
    monkeypatch.setattr(report, "plot_loss", lambda _, path: path.write_bytes(b"png"))


@pytest.fixture
def study(place, folder):
    """A study of two steps, as a file."""
    lines = [f'backbone = "{folder}"', 'task = "arithmetic"', "max_steps = 2", "per_device_train_batch_size = 2"]
    lines += ["learning_rate = 1e-2", "[adapters]", 'small = "lora[r=2]"', 'after = "series[bottleneck=2]"']
    (place / "study.toml").write_text("\n".join(lines))
    return "study.toml"


def test_a_comparison_prints_one_table_and_goes_on(llmad, study, place):
    done = llmad("compare", study, "-o", "out", "--limit", 3)
    assert done.code == 0, done.err
    rows = [line.split("\t") for line in done.out.splitlines() if "\t" in line]
    assert [row[0] for row in rows] == ["small-seed0", "after-seed0", "base", "small", "after"]
    assert rows[0][1:4] == ["lora[r=2]", rows[3][2], rows[3][3]]  # the plan's parameters are the table's
    assert rows[3][4].endswith("%")
    assert "These 3 questions show no difference between the adapters" in done.out
    assert "comparison: out/comparison.md" in done.out
    assert "small-seed0: step 2/2" in done.err
    assert "\x1b" not in done.out + done.err
    again = llmad("compare", study, "-o", "out", "--limit", 3)
    assert again.code == 0, again.err
    assert "2, 2 at a time, 2 of them done already" in again.out
    assert "step 1/2" not in again.err
    assert [line for line in again.out.splitlines() if line.startswith(("small\t", "after\t"))] == [
        line for line in done.out.splitlines() if line.startswith(("small\t", "after\t"))
    ]
    told = llmad("compare", study, "-o", "out", "--limit", 3, "--json")
    assert json.loads(told.out) == json.loads((place / "out" / "comparison.json").read_text())
    changed = llmad("compare", study, "-o", "out", "--limit", 3, "--set", "seeds=[0,1]")
    assert changed.code == 7
    assert "seeds: [0] then, [0, 1] now" in changed.err


def test_a_run_of_it_is_used_as_any_other(llmad, study, place, monkeypatch):
    assert llmad("compare", study, "-o", "out", "--limit", 2, "--set", "adapters=[lora]").code == 0
    assert llmad("evaluate", "out/lora-seed0", "--limit", 2).code == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("1 + 1?\n"))
    assert llmad("chat", "out/lora-seed0", "--max-new-tokens", 2).code == 0
    resumed = llmad("train", "--resume", "out/lora-seed0")
    assert "the run was done already" in resumed.out


def test_a_dry_run_shows_the_runs_and_writes_nothing(llmad, study, place):
    done = llmad("compare", study, "--dry-run", "--set", "seeds=[0,7]", "--together", 3)
    assert done.code == 0, done.err
    assert "4, 3 at a time" in done.out
    assert "after-seed7\tseries[bottleneck=2]\t" in done.out
    told = json.loads(llmad("compare", study, "--dry-run", "--json").out)
    assert [run["run"] for run in told["runs"]] == ["small-seed0", "after-seed0"]
    assert told["study"]["adapters"] == {"small": "lora[r=2]", "after": "series[bottleneck=2]"}
    assert [path.name for path in place.iterdir()] == [study]


def test_without_a_study_the_embedded_one_is_planned(llmad, place):
    done = llmad("compare", "--dry-run")
    assert done.code == 0, done.err
    assert "abacus on cpu" in done.out
    assert [line.partition("\t")[0] for line in done.out.splitlines() if "\t" in line] == [
        "lora-seed0",
        "series-seed0",
        "parallel-seed0",
    ]


def test_data_of_ones_own_starts_from_the_recipe_for_it():
    assert train.defaults({"data": "x"})[1]["task"] == "math"


USAGE = {
    "no file": (["missing.toml"], "missing.toml: No such file"),
    "an ending": (["study.txt"], "a recipe ends in"),
    "a key": (["--set", "adaptres=1"], "did you mean adapters"),
    "an adapter": (["--set", "adapter=lora"], "write adapters"),
    "an empty list": (["--set", "adapters=[]"], "give a list of specs"),
    "a spec": (["--set", "adapters=[lroa]"], "did you mean lora"),
    "seeds": (["--set", "seeds=[1,1]"], "1 is there twice"),
    "together": (["--together", "0"], "--together"),
    "frozen": (["--set", "frozen={a: .}"], "frozen: the adapters of a study stand on the plain base"),
    "all at once": (["--set", "adapters=[lroa]", "--set", "seeds=[]", "--set", "max_steps=0"], "max_steps"),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("words", "said"), USAGE.values(), ids=USAGE.keys())
def test_what_cannot_be_meant_is_refused(refused, words, said):
    assert said in refused(2, "compare", *words)


@pytest.mark.usefixtures("no_model")
def test_an_output_that_holds_something_else_is_refused(refused, study, place):
    (place / "out").mkdir()
    (place / "out" / "file").touch()
    assert "out is not empty, and holds no study" in refused(2, "compare", study, "-o", "out")


def test_a_file_of_training_rows_alone_has_no_questions(refused, study, place):
    (place / "rows.json").write_text(json.dumps([{"instruction": "1 + 1?", "output": "2", "answer": "2"}]))
    assert "training rows only" in refused(2, "compare", study, "--set", "data=rows.json")


def test_faults_are_told_before_torch_is_imported(python):
    code = "import sys; from llmad_cli.app import main; sys.argv = ['llmad', 'compare', '--set', 'seeds=[]']\n"
    code += "try: main()\nexcept SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    assert python(code).strip() == "2 False"
