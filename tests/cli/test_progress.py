"""What is shown while a run goes on."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from llmad.asking import Scoring
from llmad.budget import Budget, Part
from llmad.checks import Checks
from llmad.leaks import Leak
from llmad.plan import Plan
from llmad.recipe import Recipe
from llmad.run import Finished, Prepared
from llmad.score import Answer
from llmad.step import Step
from llmad_cli import progress
from llmad_cli.progress import ScoringView, TrainingView
from tests.answers import scored

STEP = Step(1, 4, 0.25, 1.5, 1e-3, 0.1, 100, 50, 2.0)
ANSWER = Answer("arithmetic", 0, "1?", "1", "1", "1", True, 1)
PREPARED = Prepared(
    recipe=Recipe(backbone="b", adapter="lora", task="t"), plan=Plan((), 5, 100, {}, {}, 0),
    checks=Checks(rows=3, left_out=0, empty=0, repeated=0, tokens=30, trained_tokens=10),
    batching="packed (rows)",
    question="1 + 1?", answer=" 2", end="<eos>", steps=4, done=0,
    skipped=(), device="cpu", quantization=None, learning_rate=1e-3, output=Path("runs/a"),
    memory=Budget(
        (Part("weights", 2**30, "the base"), Part("head", 2**29, "the loss")), 2**30, 2**31, 2**32, "measured"
    ),
)  # fmt: skip


@pytest.fixture
def terminal(monkeypatch):
    """Both streams as one terminal; what it was shown."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="standard", markup=False, width=100)
    for name in ("out", "err"):
        monkeypatch.setattr(progress, name, console)
    return stream


def test_steps_are_lines_where_no_terminal_reads_them(capsys):
    with TrainingView() as view:
        for number in (1, 2, 3, 4):
            view.observe(replace(STEP, step=number))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "step 1/4  loss 1.5000  50 tokens/s  6 s left"
    assert err.splitlines()[-1] == "step 4/4  loss 1.5000  50 tokens/s  0 s left"


def test_the_time_left_counts_the_steps_of_this_process_alone(capsys):
    with TrainingView() as view:
        view.observe(replace(STEP, step=100, steps=101))
        view.observe(replace(STEP, step=101, steps=101))
    with TrainingView() as view:
        view.observe(replace(STEP, step=90, steps=100))
    assert "20 s left" in capsys.readouterr().err


def test_a_long_run_says_no_more_than_a_dozen_lines(capsys):
    with TrainingView() as view:
        for number in range(1, 1001):
            view.observe(replace(STEP, step=number, steps=1000))
    assert len(capsys.readouterr().err.splitlines()) == 11


def test_scores_are_told_a_task_at_a_time(capsys):
    with ScoringView() as view:
        for correct in (True, False):
            view.observe(Scoring("base", "arithmetic", 2, replace(ANSWER, correct=correct)))
    assert capsys.readouterr().err == "base: arithmetic: 1 of 2 right (50.0%)\n"


def test_the_plan_is_plain_lines_where_no_terminal_reads_it(capsys):
    TrainingView().observe(replace(PREPARED, checks=replace(PREPARED.checks, left_out=2), done=3))
    shown = capsys.readouterr().out
    assert "\nparameters  5 trained of 100 (5.00%)\n" in shown
    assert "2 left out (longer than 512 tokens)" in shown
    assert "no answer is cut, every row ends with <eos>\n" in shown
    assert "going on after step 3" in shown
    assert "1 + 1?>>> 2<eos><<<" in shown


def test_the_trained_tokens_are_coloured_on_a_terminal(terminal):
    TrainingView().observe(PREPARED)
    assert "\x1b[42m 2<eos>" in terminal.getvalue()
    assert ">>>" not in terminal.getvalue()


def test_the_end_is_a_table_of_scores_and_a_place(capsys):
    score = scored(200, 100)
    TrainingView().observe(Finished(Path("runs/[bold]"), {"base": score}))
    assert (
        capsys.readouterr().out
        == "base\tarithmetic\t200\t100\t50.0%\t43.1% to 56.9%\t50.0%\t0\nrun directory: runs/[bold]\n"
    )


def test_passed_over_checkpoints_are_warned_of(capsys):
    TrainingView().observe(replace(PREPARED, skipped=("step-2: torn",)))
    assert capsys.readouterr().err == "warning: checkpoint passed over: step-2: torn\n"


def test_bars_are_drawn_on_a_terminal(terminal):
    with TrainingView() as view:
        view.observe(STEP)
        view.observe(Scoring("base", "arithmetic", 1, ANSWER))
    assert "train" in terminal.getvalue()
    assert "base: arithmetic" in terminal.getvalue()


def test_the_plan_says_how_the_base_is_quantised(capsys):
    with TrainingView() as view:
        view.observe(replace(PREPARED, quantization="nf4"))
    assert "b on cpu, quantised as nf4\n" in capsys.readouterr().out


@pytest.mark.parametrize(("exact", "said"), [(0, "none of 10"), (4, "4 of 10")])
def test_the_plan_says_what_was_looked_for_among_the_rows(capsys, exact, said):
    leaks = (Leak("svamp", 7, exact, exact), Leak("aqua", 3, 0, 0))
    TrainingView().observe(replace(PREPARED, checks=replace(PREPARED.checks, leaks=leaks)))
    assert f"; {said} test questions among them\n" in capsys.readouterr().out


def test_what_the_rows_have_amiss_is_said_before_the_plan(capsys):
    leaks = (Leak("svamp", 10, 4, 6), Leak("aqua", 5, 0, 0))
    TrainingView().observe(replace(PREPARED, checks=replace(PREPARED.checks, empty=2, repeated=1, leaks=leaks)))
    assert capsys.readouterr().err.splitlines() == [
        "warning: 2 rows have an empty output: they teach the end of the text alone",
        "warning: 1 rows ask what an earlier row has asked",
        "warning: 4 of 10 questions of svamp are among the training rows, 2 more with other numbers: "
        "a score on them says nothing about new questions",
    ]


def test_the_plan_says_what_memory_a_run_takes(capsys):
    with TrainingView() as view:
        view.observe(PREPARED)
    out, err = capsys.readouterr()
    assert "memory      1.5 GiB (1.0 to 2.0) of 4.0 GiB free: weights 1.0, head 0.5\n" in out
    assert ("the base" in out, err) == (False, "")


def test_a_dry_run_says_what_takes_it(capsys):
    with TrainingView(dry=True) as view:
        view.observe(PREPARED)
    assert re.search(r"weights +1.0 +the base", capsys.readouterr().out)


def test_memory_that_may_be_short_is_warned_of_with_its_cure(capsys):
    short = replace(PREPARED.memory, room=2**30, cure="gradient_checkpointing=true")
    with TrainingView() as view:
        view.observe(replace(PREPARED, memory=short))
    assert "memory may be short" in (err := capsys.readouterr().err)
    assert "gradient_checkpointing=true" in err


def test_what_was_picked_is_shown(capsys):
    with TrainingView() as view:
        view.observe(PREPARED)
        assert "picked" not in capsys.readouterr().out
        view.observe(replace(PREPARED, picked="2 rows at once, 4 times a step"))
    assert "picked      2 rows at once, 4 times a step\n" in capsys.readouterr().out


def test_a_budget_that_is_not_known_is_said_so(capsys):
    with TrainingView(dry=True) as view:
        view.observe(replace(PREPARED, memory="not known: no reason"))
    assert "memory      not known: no reason" in capsys.readouterr().out
