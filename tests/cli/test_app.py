"""The command itself: help, version, unknown words, signals, and how errors become a line and a code."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest

from llmad.errors import LlmadError
from llmad_cli import app


@pytest.fixture
def raising(monkeypatch):
    """Let a command raise."""

    def raising(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(app, "app", fail)

    return raising


@pytest.mark.parametrize("words", [["--help"], []])
def test_help_lists_the_commands(llmad, words):
    done = llmad(*words)
    assert done.code == 0
    for command in ("train", "evaluate", "inspect", "list-adapters", "plugins"):
        assert f"  {command}" in done.out
    assert done.err == ""


@pytest.mark.parametrize("command", ["train", "evaluate", "compare", "inspect", "list-adapters", "plugins", "recipes"])
def test_each_command_has_help(llmad, command):
    done = llmad(command, "--help")
    assert done.code == 0
    assert f" {command} [OPTIONS]" in done.out.splitlines()[0]


def test_the_version_is_the_packages(llmad):
    assert llmad("--version").out == f"llmad {version('llmad')}\n"


@pytest.mark.parametrize(
    ("words", "nearest"),
    [(["trian"], "train"), (["list-adapter"], "list-adapters"), (["train", "--tas", "x"], "--task"),
     (["list-tasks", "--jsn"], "--json"), (["--versoin"], "--version")],
)  # fmt: skip
def test_an_unknown_word_names_the_nearest(refused, words, nearest):
    said = refused(2, *words)
    assert repr(words[-1]) in said or words[-1] in said or words[1] in said
    assert nearest in said.partition("hint: ")[0].removeprefix(words[-1])


def test_a_mistyped_command_is_asked_back(refused):
    assert "did you mean 'train'?" in refused(2, "trian").lower()


def test_an_error_is_a_line_a_hint_and_a_code(llmad, raising):
    raising(LlmadError("some-code", "what and where", "the cure"))
    assert llmad("train").err == "error: what and where  [some-code]\nhint: the cure\n"


@pytest.mark.parametrize("name", ["UsageError", "DataError", "ModelError", "DivergedError", "StorageError"])
def test_the_exit_code_is_the_errors(llmad, raising, name):
    from llmad import errors

    kind = getattr(errors, name)
    raising(kind("code", "text"))
    assert llmad("train").code == kind.exit_code


def test_memory_that_runs_out_anywhere_is_no_fault_of_the_program(llmad, raising):
    raising(MemoryError())
    done = llmad("train")
    assert (done.code, "[out-of-memory]" in done.err) == (8, True)


def test_text_of_strangers_is_shown_and_not_obeyed(llmad, raising):
    raising(LlmadError("code", "[bold]x[/bold] \x1b[31m :smile:", "\x9b2J"))
    assert llmad("train").err == "error: [bold]x[/bold] \\x1b[31m :smile:  [code]\nhint: \\x9b2J\n"


def test_a_fault_of_the_program_is_one_line_without_a_traceback(llmad, raising):
    raising(RuntimeError("two\nlines"))
    done = llmad("train")
    assert done.code == 1
    assert done.err.startswith("error: RuntimeError: two lines  [internal]\nhint: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [["--debug", "train"], ["train", "--debug"]])
def test_debug_shows_the_traceback(monkeypatch, raising, words):
    raising(LlmadError("code", "text"))
    monkeypatch.setattr(sys, "argv", ["llmad", *words])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(LlmadError):
        app.main()
    signal.signal(signal.SIGTERM, before)


def test_an_interrupt_ends_with_the_shells_code(llmad, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("llmad.listing.registry", interrupt)
    done = llmad("list-adapters")
    assert done.code == 128 + signal.SIGINT
    assert done.err.startswith("error: stopped by SIGINT")


def test_a_termination_ends_with_the_shells_code(llmad, monkeypatch):
    monkeypatch.setattr("llmad.listing.registry", lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(9))
    done = llmad("list-adapters")
    assert done.code == 128 + signal.SIGTERM
    assert done.err.startswith("error: stopped by SIGTERM")


@pytest.mark.parametrize("words", ["--help", "--version", "list-adapters", "train --help", "train --adapter lroa"])
def test_what_needs_no_torch_loads_none(python, words):
    code = f"import sys\nsys.argv = 'llmad {words}'.split()\nfrom llmad_cli.app import main\ntry: main()\n" \
           "except SystemExit: pass\nprint('torch' in sys.modules, 'transformers' in sys.modules)"  # fmt: skip
    assert python(code).splitlines()[-1] == "False False"


@pytest.mark.parametrize("words", ["--help", "--version"])
def test_help_and_version_load_no_plugin(python, words):
    code = f"import sys\nsys.argv = ['llmad', '{words}']\nfrom llmad_cli.app import main\ntry: main()\n" \
           "except SystemExit: pass\nprint(*({'llmad_plugins', 'llmad.registry'} & {*sys.modules}))"  # fmt: skip
    assert python(code).splitlines()[-1] == ""


def test_a_stream_of_another_encoding_shows_escapes(python):
    code = "import sys\nsys.argv = ['llmad', 'list-adaptörs']\nfrom llmad_cli.app import main\n" \
           "sys.stderr = sys.stdout\ntry: main()\nexcept SystemExit: pass"  # fmt: skip
    assert "list-adapt\\xf6rs" in python(code, PYTHONIOENCODING="ascii")


@pytest.mark.parametrize("words", [["list-adapters", "--json"], ["list-adapters"], ["inspect", "abacus"]])
def test_a_reader_that_leaves_early_ends_the_command_as_the_system_would(words):
    command = [sys.executable, "-c", "from llmad_cli.app import main; main()", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("words", [["list-adapters", "--json"], ["list-adapters"], ["inspect", "abacus"]])
def test_an_output_that_is_full_is_told(words):
    command = [sys.executable, "-c", "from llmad_cli.app import main; main()", *words]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, "[cannot-write]" in done.stderr) == (6, True)
