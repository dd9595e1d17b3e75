"""`llmad train` in two processes that a launcher has started: one adapter, one writer, one end."""

import errno
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmad.registry import registry
from tests.launched import launcher

WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def launch():
    with launcher() as asked:
        yield asked


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Thirteen rows: seven batches of two, so that the last step of an epoch has one for two processes."""
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps(registry().task("arithmetic").rows("train", 13, 0)))
    return path


@pytest.fixture
def words(rows, tmp_path):
    """The command of a run of eight steps, two epochs: `words("run", dropout=0.2)`."""

    def words(name, dropout=0.0, data=("-d", rows), **more):
        keys = {"per_device_train_batch_size": 2, "num_train_epochs": 2, "logging_steps": 1, "save_steps": 1}
        settings = [f"--set={key}={value}" for key, value in {**keys, "learning_rate": 1e-2, **more}.items()]
        which = ["-b", "abacus", "-t", "arithmetic", "-a", f"lora[dropout={dropout}]"]
        return ["train", *which, "-o", tmp_path / name, *settings, *data]

    return words


@pytest.fixture(scope="module")
def straight(launch, rows, tmp_path_factory):
    """What a run with dropout leaves that nothing disturbs."""
    path = tmp_path_factory.mktemp("straight")
    keys = {"per_device_train_batch_size": 2, "num_train_epochs": 2, "save_steps": 1, "learning_rate": 1e-2}
    settings = [f"--set={key}={value}" for key, value in keys.items()]
    which = ["-b", "abacus", "-t", "arithmetic", "-d", rows, "-a", "lora[dropout=0.2]"]
    assert codes(launch("train", *which, "-o", path / "run", *settings)) == [0, 0]
    return bits(path / "run")


def bits(run):
    """The last checkpoint's adapter and optimizer, and the adapter."""
    last = max((run / "checkpoints").glob("step-*"))
    paths = [run / WEIGHTS, last / "adapter_model.safetensors", last / "optimizer.safetensors"]
    return last.name, [path.read_bytes() for path in paths]


def codes(ended):
    return [one.code for one in ended]


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def status(run):
    return json.loads((run / "status.json").read_text())


def said(ended):
    """The errors that all processes said, a line each."""
    return [line for one in ended for line in one.err.splitlines() if line.startswith("error: ")]


def files(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def saved(run):
    """The last checkpoint's step."""
    return int(max((run / "checkpoints").glob("step-*")).name[5:])


def test_two_processes_learn_what_one_learns_in_steps_twice_as_long(launch, words, tmp_path):
    main, other = launch(*words("two"))
    (alone,) = launch(*words("one", gradient_accumulation_steps=2), count=1)
    assert (main.code, other.code, alone.code) == (0, 0, 0), main.err + other.err + alone.err
    assert other.out == other.err == ""
    assert "8 of 4 rows" in main.out
    assert "2 rows in each of 2 processes, " in main.out
    two, one = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [step["step"] for step in two] == [*range(1, 9)]
    for ours, theirs in zip(two, one, strict=True):
        for key in ("epoch", "learning_rate", "tokens", "trained_tokens"):
            assert ours[key] == theirs[key]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    ours, theirs = load_file(tmp_path / "two" / WEIGHTS), load_file(tmp_path / "one" / WEIGHTS)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5) for name in ours)
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert status(tmp_path / "two") == {"status": "done"}
    assert "in each of 2 processes" in (tmp_path / "two" / "README.md").read_text()


@pytest.mark.parametrize("killed", [[0], [1], pytest.param([0, 1], marks=pytest.mark.slow)], ids=str)
def test_what_is_killed_ends_all_and_goes_on_to_the_same_bytes(launch, words, straight, tmp_path, killed):
    run = tmp_path / "run"
    when = run / "checkpoints" / "step-00000003"
    ended = launch(*words("run", 0.2), signals=[(when, one, signal.SIGKILL) for one in killed])
    assert codes(ended) == [-9 if rank in killed else 9 for rank in (0, 1)]
    survivors = [one for rank, one in enumerate(ended) if rank not in killed]
    assert len(said(survivors)) == len(survivors)
    assert all("another process of this run is gone: it was killed" in one.err for one in survivors)
    assert all("Traceback" not in one.err for one in survivors)
    assert codes(launch("train", "--resume", run)) == [0, 0]
    assert bits(run) == straight
    assert [step["step"] for step in metrics(run)] == [*range(1, 9)]


@pytest.mark.parametrize(
    ("number", "rank"), [(signal.SIGTERM, 1), pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow)]
)
def test_a_signal_to_one_lets_all_save_the_same_step(launch, words, straight, tmp_path, number, rank):
    run = tmp_path / "run"
    ended = launch(*words("run", 0.2, save_steps=3), signals=[(run / "checkpoints/step-00000003", rank, number)])
    assert codes(ended) == [128 + number] * 2, ended
    assert said(ended) == [f"error: stopped by {number.name}  [stopped]"]
    assert saved(run) == metrics(run)[-1]["step"]
    assert status(run) == {"status": "stopped", "message": f"stopped by {number.name}"}
    assert codes(launch("train", "--resume", run, "--set", "save_steps=1")) == [0, 0]
    assert bits(run) == straight


FULL = f"""
import os
from llmad import checkpoint
save, calls = checkpoint.save_file, []
def full(*words):
    calls.append(words)
    if len(calls) == 3:
        raise OSError({errno.ENOSPC}, os.strerror({errno.ENOSPC}))
    return save(*words)
checkpoint.save_file = full
"""


def test_a_full_disk_ends_all_and_leaves_what_was_saved(launch, words, straight, tmp_path):
    run = tmp_path / "run"
    ended = launch(*words("run", 0.2), code=FULL)
    assert codes(ended) == [6, 9]
    assert len(said(ended)) == 1
    assert "No space left on device  [cannot-write]" in said(ended)[0]
    assert ended[1].err == ""
    assert (saved(run), status(run)["code"]) == (2, "cannot-write")
    assert codes(launch("train", "--resume", run)) == [0, 0]
    assert bits(run) == straight


SHORT = """
import torch
from llmad import train
real, calls = train.token_losses, []
def short(*words):
    calls.append(words)
    if rank == 1 and len(calls) == 3:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return real(*words)
train.token_losses = short
"""


def test_memory_that_is_short_in_one_ends_all(launch, words, tmp_path):
    ended = launch(*words("run"), code=SHORT)
    assert codes(ended) == [9, 8]
    assert said(ended) == ["error: CUDA out of memory  [out-of-memory]"]
    assert status(tmp_path / "run")["code"] == "rank-lost"
    assert "out-of-memory: CUDA out of memory" in status(tmp_path / "run")["message"]
    assert saved(tmp_path / "run") == 2


def test_what_is_not_finite_in_one_stops_all_at_the_same_step(launch, words, tmp_path):
    endless = SHORT.replace('raise torch.OutOfMemoryError("CUDA out of memory")', 'return real(*words) * float("inf")')
    ended = launch(*words("run"), code=endless)
    assert codes(ended) == [5, 5]
    (line,) = said(ended)
    assert "step 3, rows [" in line
    assert "loss inf" in line
    assert saved(tmp_path / "run") == 2


def test_another_number_of_processes_is_refused(launch, words, tmp_path):
    launch(*words("two", max_steps=1))
    launch(*words("one", max_steps=1), count=1)
    (alone,) = launch("train", "--resume", tmp_path / "two", "--set", "max_steps=2", count=1)
    assert alone.code == 7
    assert "processes: 2 then, 1 now" in alone.err
    assert "hint: launch 2 processes" in alone.err
    ended = launch("train", "--resume", tmp_path / "one", "--set", "max_steps=2")
    assert codes(ended) == [7, 9]
    assert len(said(ended)) == 1
    assert "processes: 1 then, 2 now" in ended[0].err
    assert "hint: start llmad without a launcher" in ended[0].err
    assert codes(launch("train", "--resume", tmp_path / "one", "--set", "max_steps=2", count=1)) == [0]


def test_the_main_process_alone_scores_and_the_others_do_not_wait(launch, words, tmp_path):
    main, other = launch(*words("run", data=(), max_steps=1, do_eval="true", max_eval_samples=2))
    assert (main.code, other.code, other.out, other.err) == (0, 0, "", ""), main.err
    assert "adapter\tarithmetic\t2" in main.out
    assert other.seconds < main.seconds
    assert (tmp_path / "run" / "evaluation" / "scores.json").exists()


def test_a_dry_run_is_shown_once_and_writes_nothing(launch, words, tmp_path):
    main, other = launch(*words("run"), "--dry-run")
    assert (main.code, other.code, other.out, other.err) == (0, 0, "", "")
    assert "rows in each of 2 processes" in main.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("code", "reason", "more"),
    [
        (2, "each of 2 processes holds a whole one", ["--set", "device_map=auto"]),
        (2, "there is no key 'colour'", ["--set", "colour=red"]),
        (2, "is not empty", ["-o", "."]),
        (3, "there is no such file", ["-d", "no.json"]),
    ],
)
def test_what_all_would_refuse_is_said_once(launch, words, tmp_path, code, reason, more):
    ended = launch(*words("run", data=()), *more)
    assert codes(ended)[0] == code
    assert codes(ended)[1] in (code, 9)
    assert len(said(ended)) == 1
    assert reason in said(ended)[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["evaluate", "run"], ["compare", "--dry-run"], ["merge", "run", "out"]])
def test_what_runs_in_one_process_is_refused_in_several(launch, words):
    ended = launch(*words)
    assert codes(ended) == [2, 2]
    assert said(ended) == [f"error: 2 processes were launched; llmad {words[0]} runs in one  [one-process]"]


def test_a_directory_in_use_is_refused_to_all(launch, words, tmp_path):
    launch(*words("run", max_steps=1))
    held = f"import fcntl, os\nhandle = os.open({str(tmp_path / 'run' / '.lock')!r}, os.O_RDWR | os.O_CREAT)\n"
    ended = launch("train", "--resume", tmp_path / "run", code=f"{held}if rank: fcntl.flock(handle, fcntl.LOCK_EX)")
    assert codes(ended) == [6, 9]
    assert len(said(ended)) == 1
    assert "in use by" in said(ended)[0]


def kills(chance, run):
    """Whom to kill, and when: while they start, or some time after a checkpoint, and what writes it."""
    done = max([int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")], default=0)
    when = chance.uniform(0, 3)
    if done < 8 and chance.random() < 0.8:
        when = (run / "checkpoints" / f"step-{chance.randint(done + 1, 8):08d}", chance.uniform(0, 0.3))
    return [(when, one, signal.SIGKILL) for one in chance.choice([[0], [1], [0, 1]])]


@pytest.mark.slow
def test_wherever_processes_are_killed_the_run_goes_on_to_the_same_bytes(launch, words, straight, tmp_path):
    chance, run = random.Random(7), tmp_path / "run"
    killed = lost = 0
    for _ in range(60):
        command = ["train", "--resume", run] if (run / "recipe.json").exists() else words("run", 0.2)
        signals = kills(chance, run)
        agent = chance.random() < 0.5 or isinstance(signals[0][0], float)  # one that never comes is waited for
        ended = launch(*command, signals=signals, agent=agent)
        assert {*codes(ended)} <= {0, -9, 9, *((143, -15) if agent else ())}, ended  # -15: it was leaving already
        assert all("Traceback" not in one.err and "hangs" not in one.err for one in ended), ended
        assert all(one.err.count("error: ") == 1 for one in ended if one.code == 9), ended
        killed, lost = killed + codes(ended).count(-9), lost + codes(ended).count(9)
        if (run / "adapter").exists() and status(run) == {"status": "done"}:
            assert bits(run) == straight
            shutil.rmtree(run)
    assert codes(launch("train", "--resume", run) if run.exists() else launch(*words("run", 0.2))) == [0, 0]
    assert bits(run) == straight
    print(f"{killed} processes killed, {lost} ended by themselves, 0 torn")


def test_python_starts_the_command_as_a_module(python):
    assert python(
        "import runpy, sys; sys.argv = ['llmad', '--version']; runpy.run_module('llmad', run_name='__main__')"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["torchrun", "--standalone", "--nproc-per-node", "2"],
        ["accelerate", "launch", "--multi_gpu", "--num_processes", "2"],  # without one, by processors
    ],
    ids=["torchrun", "accelerate"],
)
def test_launchers_start_it(launcher, words, straight, tmp_path):
    command = [Path(sys.executable).with_name(launcher[0]), *launcher[1:], "-m", "llmad", *words("run", 0.2)]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run directory: ") == 1
    assert "2 rows in each of 2 processes" in done.stdout
    assert bits(tmp_path / "run") == straight
