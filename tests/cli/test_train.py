"""`llmad train`: recipes, plain output, and what is refused before anything is written."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from llmad import pretrained, recipe
from llmad.run import train_adapter
from llmad.stopping import SIGNALS

ROW = {"instruction": "1 + 1?", "input": "", "output": "2. The answer is 2.", "answer": "2"}


@pytest.fixture
def no_model(monkeypatch):
    """Fail where a model is loaded."""
    monkeypatch.setattr(pretrained, "load", lambda *_: pytest.fail("a model was loaded"))


@pytest.fixture
def rows(place):
    """A file of rows."""
    path = place / "rows.json"
    path.write_text(json.dumps([ROW] * 4))
    return path


def test_a_run_from_a_data_file(llmad, rows, folder, place):
    done = llmad("train", "-b", folder, "-d", rows, "-o", "out", "--set", "max_steps=2", "--set", "save_steps=1")
    assert done.code == 0, done.err
    assert json.loads((place / "out" / "status.json").read_text()) == {"status": "done"}
    assert json.loads((place / "out" / "recipe.json").read_text())["task"] == "math"
    assert "run directory: out" in done.out
    assert "\x1b" not in done.out + done.err
    assert "step 2/2" in done.err


def test_rows_without_an_output_are_warned_of(llmad, place, folder):
    (place / "rows.json").write_text(json.dumps([ROW, {**ROW, "output": ""}]))
    done = llmad("train", "-b", folder, "-d", "rows.json", "--dry-run")
    assert done.code == 0
    assert "warning: 1 rows have an empty output" in done.err


def test_a_dry_run_prints_the_plan_and_writes_nothing(llmad, rows, folder, place):
    done = llmad("train", "-b", folder, "-d", rows, "--dry-run", "-a", "lora[r=2,layers=1:]")
    assert done.code == 0, done.err
    assert "attn.q x 1, attn.v x 1" in done.out
    assert ">>>2. The answer is 2.<eos><<<" in done.out
    assert [path.name for path in place.iterdir()] == ["rows.json"]


def test_a_plan_is_not_wrapped_where_no_terminal_reads_it(llmad, rows, folder, place):
    done = llmad("train", "-b", folder, "-d", rows, "--dry-run", "-o", "x" * 150)
    assert "x" * 150 in done.out


def test_rows_are_shown_as_they_are_and_obeyed_by_nobody(llmad, place, folder):
    odd = "[bold]x[/bold] \x1b[31mred\x9b2J :smile:"
    (place / "rows.json").write_text(json.dumps([{**ROW, "instruction": odd}]))
    done = llmad("train", "-b", folder, "-d", "rows.json", "--dry-run")
    assert "[bold]x[/bold] \\x1b[31mred\\x9b2J :smile:" in done.out
    assert "\x1b" not in done.out


def test_a_recipe_file_is_followed_and_the_command_line_wins(llmad, rows, folder, place):
    (place / "a.toml").write_text(f'backbone = "{folder}"\ndata = "rows.json"\nmax_steps = 7\nadapter = "series"\n')
    done = llmad("train", "a.toml", "--dry-run", "--set", "max_steps=3", "-a", "lora")
    assert done.code == 0, done.err
    assert "3 of 16 rows" in done.out
    assert "adapter     lora" in done.out


def test_a_finished_run_is_resumed_without_a_step(llmad, trained, tmp_path, place):
    shutil.copytree(trained, place / "run")
    for words in (("--resume", "run"), ("--resume", "auto", "-o", "run")):
        done = llmad("train", *words)
        assert done.code == 0, done.err
        assert "going on after step 2 from run/checkpoints/step-00000002" in done.out
        assert "the run was done already, and nothing is left to do; run directory: run" in done.out
        assert "step 1/2" not in done.err


def test_resume_auto_starts_a_run_where_there_is_none(llmad, rows, folder, place):
    words = ("train", "-b", folder, "-d", rows, "-o", "out", "--resume", "auto", "--set", "max_steps=1")
    assert llmad(*words).code == 0
    assert (place / "out" / "status.json").is_file()


def test_a_damaged_checkpoint_is_named_when_it_is_passed_over(llmad, trained, place):
    shutil.copytree(trained, place / "run")
    (place / "run" / "checkpoints" / "step-00000003").mkdir()
    done = llmad("train", "--resume", "run")
    assert done.code == 0, done.err
    assert "warning: checkpoint passed over: step-00000003: " in done.err


def test_another_recipe_is_no_resume(refused, trained, place):
    shutil.copytree(trained, place / "run")
    said = refused(7, "train", "--resume", "run", "--set", "seed=5")
    assert "seed: 0 then, 5 now" in said


USAGE = {
    "adapter": (["-a", "lroa"], "did you mean lora"),
    "option": (["-a", "lora[rr=4]"], "no option 'rr'"),
    "role": (["-a", "lora[sites=attn.qq]"], "did you mean attn.q"),
    "layers": (["-a", "lora[layers=one]"], "neither a layer number nor a slice"),
    "spec": (["-a", "lora[r=4"], "is no adapter spec"),
    "task": (["-t", "aritmetic"], "did you mean arithmetic"),
    "backbone": (["-b", "lama-7b"], "did you mean llama-7b"),
    "folder": (["-b", "./missing"], "no local folder"),
    "home": (["-b", "~nobody-of-that-name/x"], "no local folder"),
    "key": (["--set", "learning_rat=1"], "did you mean learning_rate"),
    "value": (["--set", "max_steps=0"], "max_steps"),
    "pair": (["--set", "max_steps"], "is not key=value"),
    "broken value": (["--set", "max_steps=["], "--set 'max_steps=['"),
    "recipe name": (["defalt"], "did you mean default"),
    "recipe file": (["missing.toml"], "missing.toml: No such file"),
    "recipe ending": (["recipe.txt"], "a recipe ends in"),
    "resume": (["--resume", "missing"], "--resume missing: there is no run"),
    "resume without output": (["--resume", "auto"], "needs --output"),
    "option of the command": (["--tsak", "x"], "--task"),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("words", "said"), USAGE.values(), ids=USAGE.keys())
def test_what_cannot_be_meant_is_refused(refused, words, said):
    assert said in refused(2, "train", *words)


DATA = {
    "an empty file": ("rows.json", "", "rows.json:1: not JSON"),
    "an empty list": ("rows.json", "[]", "rows.json holds no rows"),
    "truncated": ("rows.json", json.dumps([ROW, ROW])[:-5], "rows.json:1: not JSON"),
    "not JSON": ("rows.json", "a,b\n1,2\n", "rows.json:1: not JSON"),
    "a bad line": ("rows.jsonl", f"{json.dumps(ROW)}\n{{x\n", "rows.jsonl:2: not JSON"),
    "a field missing": ("rows.json", json.dumps([*[ROW] * 6, {"instruction": "1?"}]), "row 7 has no field 'output'"),
    "wrong types": ("rows.json", json.dumps([{**ROW, "output": [1]}]), "row 1: output is list, not text"),
    "every output empty": ("rows.json", json.dumps([{**ROW, "output": ""}]), "every row's output is empty"),
}


@pytest.mark.parametrize(("name", "content", "said"), DATA.values(), ids=DATA.keys())
def test_data_that_cannot_be_used_is_refused(refused, place, folder, name, content, said):
    (place / name).write_text(content)
    assert said in refused(3, "train", "-b", folder, "-d", name, "-o", "out")


OTHER_DATA = {
    # name, content, what is said, and the twin that is read
    "missing cells": ("a.csv", b"instruction,output\n1?,1\n2?\n", "a.csv:3: row 2 has 1 cells, the header 2",
                      "instruction,output\n1?,1\n2?,2\n"),
    "a quote left open": ("a.csv", b'instruction,output\n"1?,1\n', "a.csv:2: the row that begins here is broken",
                          'instruction,output\n"1?",1\n'),
    "Latin-1": ("a.csv", b"instruction,output\ncaf\xe9,1\n", "a.csv:2: cannot be read: byte 0xe9",
                "instruction,output\ncaf\u00e9,1\n"),
    "a near column": ("a.csv", b"Instruction,output\n1?,1\n", "hint: --columns 'instruction=Instruction'",
                      "instruction,output\n1?,1\n"),
    "no reply": ("a.jsonl", b'{"messages": [{"role": "system", "content": "x"}]}', "a.jsonl:1: row 1: messages: no",
                 '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}'),
    "two layouts": ("a.json", b'[{"prompt": "1?", "completion": "1"}, {"instruction": "1?", "output": "1"}]',
                    "a.json: two layouts in one file", '[{"prompt": "1?", "completion": "1"}]'),
}  # fmt: skip


@pytest.mark.parametrize(("name", "bad", "said", "good"), OTHER_DATA.values(), ids=OTHER_DATA.keys())
def test_data_of_other_forms_is_refused_or_read(refused, llmad, place, folder, name, bad, said, good):
    (place / name).write_bytes(bad)
    assert said in refused(3, "train", "-b", folder, "-d", name, "-o", "out")
    (place / name).write_text(good, encoding="utf-8")
    done = llmad("train", "-b", folder, "-d", name, "--dry-run", "--set", "prompt=task")
    assert done.code == 0, done.err


def test_prompts_and_completions_are_trained_on_as_they_stand(llmad, place, folder):
    (place / "a.csv").write_text("prompt,completion\n1 + 1 =, 2\n")
    done = llmad("train", "-b", folder, "-d", "a.csv", "--dry-run")
    assert done.code == 0, done.err
    assert "1 + 1 =>>> 2<eos><<<" in done.out


def test_a_chat_needs_a_template(llmad, refused, place, folder):
    said = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}]
    (place / "a.json").write_text(json.dumps([{"messages": said * 2}]))
    assert "no chat template" in refused(2, "train", "-b", folder, "-d", "a.json")
    shutil.copytree(folder, place / "chatty")
    template = "{% for one in messages %}[{{ one.role }}]{{ one.content }}{% endfor %}"
    (place / "chatty" / "chat_template.jinja").write_text(
        template + "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    done = llmad("train", "-b", "chatty", "-d", "a.json", "--dry-run")
    assert done.code == 0, done.err
    assert "[user]1?[assistant]>>>1<eos><<<" in done.out
    assert "2 rows of 1 conversations of a.json" in done.out


def test_columns_are_mapped(llmad, refused, place, folder):
    (place / "a.csv").write_text("question,reply\n1 + 1?,2\n")
    done = llmad("train", "-b", folder, "-d", "a.csv", "--columns", "instruction=question,output=reply", "--dry-run")
    assert done.code == 0, done.err
    assert ">>>2<eos><<<" in done.out
    assert llmad("train", "-b", folder, "-d", "a.csv", "--set", "columns={instruction: question, output: reply}",
                 "--dry-run").code == 0  # fmt: skip
    said = refused(2, "train", "-b", folder, "-d", "a.csv", "--columns", "instruction=questoin,output=reply")
    assert "a.csv: no row has a column 'questoin'" in said
    assert "did you mean question?" in said
    assert "WANTED=COLUMN" in refused(2, "train", "-b", folder, "-d", "a.csv", "--columns", "question")


@pytest.mark.usefixtures("no_model")
def test_a_data_set_on_the_hub_is_pinned_and_needs_a_network(refused, folder):
    assert "names no commit" in refused(2, "train", "-b", folder, "-d", "hub:me/set")
    assert "task math names no train rows on the hub" in refused(3, "train", "-b", folder, "-d", "hub", "-t", "math")
    said = refused(3, "train", "-b", folder, "-d", f"hub:me/set@{'0' * 40}")
    assert f"error: hub:me/set@{'0' * 40}#train cannot be read: " in said
    assert "HF_HUB_OFFLINE is set" in said


@pytest.mark.usefixtures("no_model")
def test_data_that_is_missing_is_refused(refused):
    assert "missing.json: there is no such file" in refused(3, "train", "-d", "missing.json", "-b", "llama-7b")
    assert "come from a file" in refused(3, "train", "-t", "svamp", "-b", "llama-7b")


@pytest.mark.usefixtures("no_model")
def test_an_output_that_is_taken_is_refused(refused, place, rows, folder):
    (place / "out").mkdir()
    (place / "out" / "recipe.json").touch()
    assert "out is not empty" in refused(2, "train", "-b", folder, "-d", rows, "-o", "out")


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("output", ["file", "file/run"])
def test_an_output_that_cannot_be_written_is_refused_before_a_model_is_loaded(refused, place, rows, folder, output):
    (place / "file").touch()
    assert "is in the way" in refused(6, "train", "-b", folder, "-d", rows, "-o", output)


@pytest.mark.parametrize("spec", ["lora[layers=99]", "lora[sites=path:nothing.*]"])
def test_a_selector_that_matches_nothing_is_refused(refused, rows, folder, spec):
    refused(2, "train", "-b", folder, "-d", rows, "-a", spec, "-o", "out")


def test_a_backbone_without_weights_is_refused(refused, rows):
    assert "known by its shape only" in refused(2, "train", "-b", "llama-7b", "-d", rows, "-o", "out")


def test_a_backbone_that_is_broken_is_refused(refused, rows, folder, place):
    shutil.copytree(folder, place / "broken")
    (place / "broken" / "model.safetensors").write_text("{")
    refused(4, "train", "-b", "broken", "-d", rows, "-o", "out")


def test_every_fault_is_told_at_once(refused):
    said = refused(2, "train", "-a", "lroa", "-t", "aritmetic", "--set", "sed=1", "--set", "max_steps=0")
    for part in ("lroa", "aritmetic", "'sed'", "max_steps: "):
        assert part in said


@pytest.mark.usefixtures("fresh_registry")
def test_an_unknown_plugin_on_the_allow_list_is_refused(refused, monkeypatch):
    monkeypatch.setenv("LLMAD_PLUGINS", "nope")
    assert "LLMAD_PLUGINS names 'nope'" in refused(2, "train", "--dry-run")


def test_a_run_that_diverges_says_so(llmad, rows, folder, place):
    words = ("--set", "learning_rate=1e30", "--set", "max_steps=9", "--set", "per_device_train_batch_size=1")
    done = llmad("train", "-b", folder, "-d", rows, "-o", "out", *words, "--set", "warmup_ratio=0")
    assert done.code == 5, done.err
    assert "error: step " in done.err
    assert "hint: lower learning_rate" in done.err
    assert json.loads((place / "out" / "status.json").read_text())["code"] == "diverged"


def test_the_built_in_recipes_are_listed_and_can_be_used(llmad, place):
    names = [row["name"] for row in json.loads(llmad("recipes", "--json").out)]
    assert set(names) >= {"data", "default"}
    assert all(f"{name}: " in llmad("recipes").out for name in names)


LONG = {"max_steps": 100, "save_steps": 10, "seed": 3}
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture
def long_run(place, rows, folder):
    """Start a run of a hundred steps with a command, and wait for its first checkpoint: `words, process`."""
    started = []

    def long_run(*command):
        words = ["train", "-b", folder, "-d", str(rows), "-a", "lora[dropout=0.2]", "-o", "out"]
        words += [f"--set={key}={value}" for key, value in LONG.items()]
        process = subprocess.Popen(
            [*command, *words],
            cwd=place,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in SIGNALS],  # none is ignored
        )
        started.append(process)
        while not (place / "out" / "checkpoints" / "step-00000010").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        return words, process

    yield long_run
    for process in started:
        process.kill()
        process.communicate()


PROGRAM = (sys.executable, "-c", "from llmad_cli.app import main; main()")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, folder):
    """The weights to which that run comes where nothing disturbs it."""
    path = tmp_path_factory.mktemp("straight")
    (path / "rows.json").write_text(json.dumps([ROW] * 4))
    layer = {
        "backbone": folder,
        "task": "math",
        "data": str(path / "rows.json"),
        "adapter": "lora[dropout=0.2]",
        **LONG,
    }
    train_adapter(recipe.load([("test", {**layer, "output_dir": str(path / "out")})]), lambda _: None)
    return (path / "out" / WEIGHTS).read_bytes()


def test_a_run_that_goes_on_is_not_gone_on_with_twice(long_run, refused, llmad, place, straight):
    """And one that is killed goes on to the same adapter."""
    words, process = long_run(*PROGRAM)
    process.send_signal(signal.SIGSTOP)
    said = refused(6, *words, "--resume", "auto")
    assert f"error: out is in use by process {process.pid} on " in said
    process.kill()
    process.wait()
    assert json.loads((place / "out" / "status.json").read_text()) == {"status": "running"}
    assert llmad(*words, "--resume", "auto").code == 0
    assert (place / "out" / WEIGHTS).read_bytes() == straight


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_saves_its_step_and_goes_on_to_the_same_adapter(
    llmad, warm, long_run, place, straight, number
):
    words, process = long_run(warm / "llmad")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"error: stopped by {number.name}" in err
    assert "Traceback" not in err
    status = json.loads((place / "out" / "status.json").read_text())
    assert status == {"status": "stopped", "message": f"stopped by {number.name}"}
    last = json.loads((place / "out" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    saved = max(int(path.name.removeprefix("step-")) for path in (place / "out" / "checkpoints").glob("step-*"))
    assert last <= saved < last + 10  # metrics have every tenth step
    assert llmad(*words, "--resume", "auto").code == 0
    assert (place / "out" / WEIGHTS).read_bytes() == straight


def test_a_second_signal_ends_a_run_at_once(long_run, warm):
    _, process = long_run(warm / "llmad")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT


def test_what_a_run_is_built_on_is_said(llmad, rows, folder, trained):
    done = llmad("train", "-b", folder, "-d", rows, "--dry-run", "--set", f"frozen={{style: {trained}}}")
    assert done.code == 0, done.err
    assert "lora on top of style, frozen" in done.out


def test_a_frozen_adapter_that_is_missing_is_refused(refused, rows, folder, no_model):
    told = refused(4, "train", "-b", folder, "-d", rows, "--set", "frozen={style: nowhere}")
    assert "frozen: style: nowhere is no adapter directory" in told
