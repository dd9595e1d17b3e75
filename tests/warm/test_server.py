"""A command of the warm process is the command: words, folder, environment, streams and end are passed on."""

import json
import os
import subprocess

import pytest


@pytest.fixture
def llmad(warm, tmp_path):
    """Start a command, with streams that can be read."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def llmad(*words, **more):
        return subprocess.Popen([str(warm / "llmad"), *words], cwd=tmp_path, **pipes, **more)

    return llmad


def test_it_ends_as_the_command_ends(llmad):
    done = llmad("list-adapters", "--json")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, "")
    assert "lora" in [row["name"] for row in json.loads(out)]
    wrong = llmad("trian")
    out, err = wrong.communicate(timeout=60)
    assert (wrong.returncode, out) == (2, "")
    assert err.startswith("error: ")


def test_folder_and_environment_are_the_clients(llmad, tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    _, err = llmad("train", "--data", "rows.json", "--dry-run").communicate(timeout=60)
    assert "rows.json holds no rows" in err
    _, err = llmad("list-adapters", env={**os.environ, "LLMAD_PLUGINS": "nope"}).communicate(timeout=60)
    assert "LLMAD_PLUGINS names 'nope'" in err


def test_two_commands_leave_each_other_alone(llmad):
    together = [llmad("list-tasks", "--json") for _ in range(3)]
    first, *others = [one.communicate(timeout=60)[0] for one in together]
    assert json.loads(first)
    assert others == [first] * 2
