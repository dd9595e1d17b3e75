"""Whatever stops a run, and whatever is damaged, it goes on to the same bytes or says why not."""

import errno
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from llmad import checkpoint, keeping, report, resuming
from llmad.errors import LlmadWarning, ResumeError, StorageError
from llmad.exam import Exam
from llmad.run import Finished, Prepared, train_adapter
from llmad.run_dir import RunDir
from llmad.scoring import evaluate_adapters
from llmad.step import Step
from tests import slain
from tests.outage import Killed, outage

STEPS = 3
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)


@pytest.fixture(scope="module")
def recipe(told):
    """A run with dropout that saves every step and keeps one: `recipe(path)`."""

    def recipe(path, **more):
        how = {"adapter": "lora[dropout=0.3]", "max_steps": STEPS, "save_steps": 1, "save_total_limit": 1}
        return told(output_dir=str(path), **{**how, **more})

    return recipe


@pytest.fixture(scope="module")
def straight(recipe, tmp_path_factory):
    """What a run that nothing stops leaves."""
    path = tmp_path_factory.mktemp("straight") / "run"
    train_adapter(recipe(path), lambda _: None)
    return left(path)


@pytest.fixture
def no_plot(monkeypatch):
    """Drawing takes longer than all the rest of such a short run."""
    monkeypatch.setattr(report, "plot_loss", lambda _, path: path.write_bytes(b"png"))


def left(path):
    """All that must be equal: weights, optimizer, and the metrics without their times."""
    tensors = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*.safetensors")}
    metrics = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    status = json.loads((path / "status.json").read_text())
    return tensors, [{**entry, "seconds": 0} for entry in metrics], status


def go_on(recipe, path, observe=lambda _: None):
    """As `--resume auto` does."""
    train_adapter(recipe, observe, path if (path / "recipe.json").is_file() else None)


def leftovers(path):
    return [str(file.relative_to(path)) for file in path.rglob("*") if file.name.startswith(".")]


def stop_at(recipe, path, number, error=None):
    """Run until a call of the system fails; whether it did."""
    try:
        with outage(number, error) as calls:
            train_adapter(recipe, lambda _: None)
    except (Killed, StorageError) as stop:
        return stop
    return None if number is not None else len(calls)


def batter(recipe, straight, tmp_path, error, every):
    total = stop_at(recipe(tmp_path / "count"), tmp_path / "count", None)
    assert total > 100
    stops = []
    for number in range(0, total, every):
        path = tmp_path / str(number)
        failure = error(number) if error else None
        stops.append(stop_at(recipe(path), path, number, failure))
        begun = (path / "recipe.json").exists()
        assert not (error and stops[-1] and begun) or RunDir(path).status() == "failed"
        go_on(recipe(path), path)
        assert left(path) == straight, number
        assert leftovers(path) == []
        shutil.rmtree(path)
    print(f"{len(stops)} of {total} calls, {sum(stop is not None for stop in stops)} stopped the run, 0 torn")
    if error:
        assert all(stop.exit_code == 6 for stop in stops if stop)
        assert sum(not stop.hint for stop in stops if stop) < total / 50  # the adapter directory's own mkdir has none
    else:
        assert all(stops)


@pytest.mark.usefixtures("no_plot")
@pytest.mark.parametrize("error", [None, lambda number: ERRORS[number % 4]], ids=["killed", "failed"])
def test_a_run_that_stops_at_some_calls_of_the_system_goes_on_to_the_same_bytes(recipe, straight, tmp_path, error):
    batter(recipe, straight, tmp_path, error, 29)


@pytest.mark.slow
@pytest.mark.usefixtures("no_plot")
@pytest.mark.parametrize("error", [None, lambda number: ERRORS[number % 4]], ids=["killed", "failed"])
def test_a_run_that_stops_at_any_call_of_the_system_goes_on_to_the_same_bytes(recipe, straight, tmp_path, error):
    batter(recipe, straight, tmp_path, error, 1)


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from llmad import keeping, recipe, report
from llmad.run import train_adapter
from llmad.run_dir import RunDir
report.plot_loss = lambda _, path: path.write_bytes(b"png")
path, kills, words = Path(sys.argv[1]), int(sys.argv[2]), eval(sys.argv[3])
keeping._beside = lambda _: bool(kills % 2)  # in every second sweep saves are written beside the steps
told = recipe.load([("test", words)])
chance = random.Random(kills)

def start():
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            train_adapter(told, lambda _: None, path if (path / "recipe.json").is_file() else None)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
    return child

def one(seconds):
    child = start()
    ends = time.time() + seconds
    while time.time() < ends:
        time.sleep(0.001)
        if os.waitpid(child, os.WNOHANG)[0]:
            return "over"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "killed"

began = time.time()
killed = over = 0
while killed < kills:
    found = one(chance.uniform(0.05, 0.8))
    killed += found == "killed"
    if found == "over" and killed < kills:
        over += 1
        assert RunDir(path).status() == "done", path
        path.rename(path.with_name(f"{path.name}-{over}"))
code = os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1])
print(killed, over, code)
"""


def kill_for_real(recipe, tmp_path, kills, steps):
    path = tmp_path / "run"
    more = {"save_total_limit": 2, "max_steps": steps}
    words = recipe(path, **more).model_dump(mode="json")
    command = [sys.executable, "-W", "ignore", "-c", KILLS, str(path), str(kills), repr(words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    killed, over, code = map(int, done.stdout.split("\n")[-2].split())
    assert (killed, code) == (kills, 0), done.stdout
    train_adapter(recipe(tmp_path / "straight", **more), lambda _: None)
    runs = [path, *(path.with_name(f"run-{number}") for number in range(1, over + 1))]
    assert all(left(run) == left(tmp_path / "straight") for run in runs)
    assert not any(leftovers(run) for run in runs)
    print(f"{killed} kills, {len(runs)} runs came to their end, all byte-equal")


def test_a_run_that_is_killed_three_times_goes_on_to_the_same_bytes(recipe, tmp_path):
    kill_for_real(recipe, tmp_path, 3, 10)


@pytest.mark.usefixtures("no_plot")
def test_saves_beside_the_steps_leave_the_same_bytes(recipe, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "_beside", lambda _: True)
    path = tmp_path / "run"
    with pytest.raises(Killed), outage(120):
        train_adapter(recipe(path), lambda _: None)
    go_on(recipe(path), path)
    assert left(path) == straight
    assert leftovers(path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kills", [40, 41], ids=["saved between steps", "saved beside them"])
def test_a_run_that_is_killed_forty_times_goes_on_to_the_same_bytes(recipe, tmp_path, kills):
    kill_for_real(recipe, tmp_path, kills, 30)


SAVES = pytest.mark.parametrize(
    ("after", "place"), [(1, "checkpoints"), (STEPS, "adapter")], ids=["checkpoint", "adapter"]
)


def slay(recipe, straight, tmp_path, after, place, every):
    """Kill a run, once it is after a step, before one of `every` calls that change the disk; all goes on from there."""
    path = tmp_path / "run"
    words = json.dumps(recipe(path).model_dump(mode="json"))
    command = [sys.executable, "-W", "ignore", slain.__file__, str(path), str(after), str(every), words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    if done.returncode == slain.UNTRACEABLE:
        pytest.skip("processes cannot be followed here")
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [slain.Call(*call) for call in json.loads(done.stdout.splitlines()[-1])]
    tensors = sum(len(content) for name, content in straight[0].items() if name.startswith(place))
    assert sum(call.size for call in calls) > tensors, "something is written by calls that are not counted"
    for killed in sorted((tmp_path / "killed").iterdir()):
        shutil.rmtree(path, ignore_errors=True)
        killed.rename(path)
        assert checkpoint.newest(path / "checkpoints").step in (after, min(after + 1, STEPS)), killed.name
        go_on(recipe(path), path)
        assert left(path) == straight, killed.name
        assert leftovers(path) == [], killed.name
        print(f"{killed.name}: the same bytes")
    print(f"{len(calls)} calls: {Counter(call.name for call in calls)}")


@SAVES
def test_a_save_that_is_killed_at_some_calls_of_any_library_goes_on_to_the_same_bytes(
    recipe, straight, tmp_path, after, place
):
    slay(recipe, straight, tmp_path, after, place, 13)


@pytest.mark.slow
@SAVES
def test_a_save_that_is_killed_at_any_call_of_any_library_goes_on_to_the_same_bytes(
    recipe, straight, tmp_path, after, place
):
    slay(recipe, straight, tmp_path, after, place, 1)


@pytest.fixture
def cut_short(recipe, tmp_path):
    """A run of which two checkpoints are left: `cut_short()` is its recipe and path."""
    numbers = count()

    def cut_short():
        path = tmp_path / f"cut-{next(numbers)}"
        how = recipe(path, save_total_limit=2)

        def stop(event):
            if isinstance(event, Step) and event.step == 2:
                raise Killed

        with pytest.raises(Killed):
            train_adapter(how, stop)
        return how, path

    return cut_short


FILES = (
    "adapter_config.json adapter_model.safetensors llmad.json optimizer.safetensors cursor.json manifest.json".split()
)
DAMAGE = {
    "flipped": lambda content, chance: _flipped(content, chance.randrange(8 * len(content))),
    "truncated": lambda content, chance: content[: chance.randrange(len(content))],
    "emptied": lambda content, _: b"",
    "deleted": lambda *_: None,
}


def _flipped(content, bit):
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def damage(file, how, chance):
    content = DAMAGE[how](file.read_bytes(), chance)
    file.unlink()
    if content is not None:
        file.write_bytes(content)


@pytest.fixture
def without_limit(recipe, tmp_path):
    path = tmp_path / "straight-2"
    train_adapter(recipe(path, save_total_limit=2), lambda _: None)
    return left(path)


@pytest.mark.usefixtures("no_plot")
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(cut_short, without_limit, tmp_path):
    chance = random.Random(0)
    recipe, path = cut_short()
    whole = shutil.copytree(path, tmp_path / "whole")
    for number, name in enumerate(FILES):
        for how in [*DAMAGE][number % 2 :: 2]:
            shutil.rmtree(path)
            shutil.copytree(whole, path)
            damage(path / "checkpoints" / "step-00000002" / name, how, chance)
            seen = []
            go_on(recipe, path, seen.append)
            assert seen[0].resumed == path / "checkpoints" / "step-00000001"
            assert seen[0].skipped[0].startswith("step-00000002: ")
            assert left(path) == without_limit


def test_damage_to_all_of_them_is_refused_and_changes_nothing(cut_short):
    recipe, path = cut_short()
    for folder in (path / "checkpoints").iterdir():
        damage(folder / "optimizer.safetensors", "flipped", random.Random(1))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(StorageError, match=r"step-00000002: optimizer.*step-00000001: optimizer") as error:
        go_on(recipe, path)
    assert error.value.exit_code == 6
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


@pytest.fixture
def over(recipe, tmp_path):
    """A run that is over."""
    path = tmp_path / "over"
    train_adapter(recipe(path), lambda _: None)
    return recipe(path), path


def test_a_run_that_is_over_is_left_as_it_is(over):
    recipe, path = over
    before = {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in path.rglob("*")}
    del before[path / "checkpoints"]
    seen = []
    go_on(recipe, path, seen.append)
    assert [type(event) for event in seen] == [Prepared, Finished]
    assert seen[1].already
    after = {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in path.rglob("*")}
    assert all(after[file] == stat for file, stat in before.items())


@pytest.mark.usefixtures("no_plot")
@pytest.mark.parametrize("how", ["flipped", "deleted"])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "llmad.json"])
def test_a_run_that_is_over_has_its_adapter_written_again_where_it_was_damaged(over, straight, how, name):
    recipe, path = over
    damage(path / "adapter" / name, how, random.Random(2))
    with pytest.warns(LlmadWarning, match="the adapter is written again"):
        go_on(recipe, path)
    assert left(path) == straight


def test_another_version_of_a_plugin_is_refused(cut_short, monkeypatch):
    recipe, path = cut_short()
    monkeypatch.setattr(resuming, "_origins", lambda _: {"method of": "llmad 9", "task of": "stranger 1"})
    with pytest.raises(ResumeError, match=r"method of: 'llmad .*' then, 'llmad 9' now; task of: 'llmad .*'stranger 1'"):
        go_on(recipe, path)


def test_another_version_of_torch_is_told(cut_short, straight, monkeypatch):
    recipe, path = cut_short()
    torch = resuming.version("torch")
    monkeypatch.setattr(resuming, "version", lambda name: "9.9" if name == "torch" else "1.0")
    with pytest.warns(LlmadWarning, match=f"torch {torch.replace('+', '.')} then, 9.9 now; transformers"):
        go_on(recipe, path)


def test_metrics_that_are_damaged_are_named(cut_short):
    recipe, path = cut_short()
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("x" + "".join(lines))
    with pytest.raises(StorageError, match=r"metrics\.jsonl:1: no line of metrics"):
        go_on(recipe, path)


def test_two_processes_do_not_go_on_with_one_run(cut_short):
    recipe, path = cut_short()

    def second(event):
        if isinstance(event, Step):
            with pytest.raises(StorageError, match="is in use by process"):
                train_adapter(recipe, lambda _: None, path)
            seen.append(event.step)

    seen = []
    go_on(recipe, path, second)
    assert seen == [3]


def test_two_processes_do_not_begin_one_run(recipe, tmp_path):
    path = tmp_path / "run"

    def quicker(event):
        if isinstance(event, Prepared):
            train_adapter(recipe(path), lambda _: None)

    with pytest.raises(Exception, match="is not empty") as error:
        train_adapter(recipe(path), quicker)
    assert error.value.exit_code == 2
    assert RunDir(path).status() == "done"


def test_two_processes_do_not_evaluate_into_one_place(over, few_rows):
    _, path = over
    exam = Exam(data=few_rows, limit=2)

    def second(_):
        with pytest.raises(StorageError, match="evaluation is in use by process") as error:
            evaluate_adapters([path], exam, lambda _: None)
        seen.append(error.value.exit_code)

    seen = []
    evaluate_adapters([path], exam, second)
    assert set(seen) == {6}
    assert (path / "evaluation" / "scores.json").is_file()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv = ["llmad", *sys.argv[2:]]
from llmad_cli.app import main
main()
"""


def test_a_system_that_takes_no_large_file_is_named_and_the_run_goes_on_later(recipe, tmp_path, without_limit):
    path = tmp_path / "run"
    how = recipe(path, save_total_limit=2)

    def stop(event):
        if isinstance(event, Step) and event.step == 1:
            raise Killed

    with pytest.raises(Killed):
        train_adapter(how, stop)
    size = (path / "checkpoints" / "step-00000001" / "optimizer.safetensors").stat().st_size
    command = [sys.executable, "-W", "ignore", "-c", LIMITED, str(size - 1), "train", "--resume", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert "optimizer.safetensors" in done.stderr
    assert "File too large" in done.stderr
    assert "hint: raise the limit on the size of a file" in done.stderr
    assert RunDir(path).status() == "failed"
    assert [file.name for file in (path / "checkpoints").iterdir()] == ["step-00000001"]
    go_on(how, path)
    assert left(path) == without_limit


class Machine(RuleBasedStateMachine):
    """Train, kill, damage, evaluate and go on, in any order."""

    recipe, straight, rows, folder, numbers = None, None, None, None, count()

    @initialize()
    def begin(self):
        self.path = self.folder / str(next(self.numbers))
        self.told = self.recipe(self.path, save_total_limit=2)

    def train(self, number=None):
        try:
            with outage(number):
                go_on(self.told, self.path)
        except Killed:
            return
        except StorageError as error:
            assert error.code in ("broken-checkpoints", "no-checkpoints")  # noqa: PT017
            shutil.rmtree(self.path)
            return
        assert left(self.path) == self.straight

    @rule(number=st.integers(0, 250))
    def kill(self, number):
        self.train(number)

    @rule()
    def finish(self):
        self.train()

    @rule(how=st.sampled_from([*DAMAGE]), name=st.sampled_from(FILES), place=st.randoms(use_true_random=False))
    def spoil(self, how, name, place):
        files = sorted(self.path.glob(f"checkpoints/step-*/{name}"))
        if files and files[-1].stat().st_size:
            damage(files[-1], how, place)

    @precondition(lambda self: (self.path / "adapter").is_dir())
    @rule()
    def evaluate(self):
        evaluate_adapters([self.path], Exam(data=self.rows, limit=1, base=False), lambda _: None)


@pytest.mark.slow
@pytest.mark.usefixtures("no_plot")
def test_any_order_of_troubles_ends_in_the_same_bytes(recipe, few_rows, without_limit, tmp_path):
    Machine.recipe, Machine.straight = staticmethod(recipe), without_limit
    Machine.rows, Machine.folder = few_rows, tmp_path
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=15, stateful_step_count=8, suppress_health_check=list(HealthCheck)),
    )
