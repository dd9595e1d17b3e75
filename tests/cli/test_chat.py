"""`llmad chat`: questions from a pipe, and from a terminal."""

import io
import json
import os
import select
import shutil
import subprocess
import sys

import pytest

from llmad_cli import chat as command


@pytest.fixture
def run(trained, place):
    """A copy of a run that may be written."""
    shutil.copytree(trained, place / "run")
    return "run"


@pytest.fixture
def piped(monkeypatch):
    """Put text where the standard input is."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_each_line_has_a_line_of_answer(llmad, run, piped):
    piped("1 + 1?\n\n 2 + 2? ")
    done = llmad("chat", run, "--max-new-tokens", 12)
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 3
    assert done.out.splitlines()[1] == ""
    piped("2 + 2?\n")
    assert llmad("chat", run, "--max-new-tokens", 12).out.splitlines() == done.out.splitlines()[2:]


def test_json_for_machines(llmad, run, piped):
    piped("1 + 1?\n2 + 2?\n")
    found = [json.loads(line) for line in llmad("chat", run, "--json", "--max-new-tokens", 5).out.splitlines()]
    assert [one["question"] for one in found] == ["1 + 1?", "2 + 2?"]
    assert all(one.keys() == {"question", "answer"} for one in found)


def test_no_questions_no_answers(llmad, run, piped):
    piped("")
    assert llmad("chat", run).out == ""


def test_sampling_with_a_seed(llmad, run, piped):
    said = []
    for seed in (0, 0, 1):
        piped("1 + 1?\n")
        said.append(llmad("chat", run, "--temperature", 1.5, "--seed", seed, "--max-new-tokens", 20).out)
    assert said[0] == said[1] != said[2]


USAGE = {
    "temperature": (["--temperature", "-1"], "--temperature"),
    "no number": (["--temperature", "nan"], "--temperature"),
    "tokens": (["--max-new-tokens", "0"], "--max-new-tokens"),
    "backbone": (["--backbone", "lama-7b"], "did you mean llama-7b"),
    "quantizer": (["--quantize", "nf5"], "nf4"),
    "device": (["--device-map", "7up"], "--device-map"),
}


@pytest.mark.parametrize(("words", "said"), USAGE.values(), ids=USAGE.keys())
def test_what_cannot_be_meant_is_refused(refused, run, words, said):
    assert said in refused(2, "chat", run, *words)


def test_a_folder_that_is_no_adapter_is_refused(refused, place):
    (place / "empty").mkdir()
    assert "empty is no adapter directory" in refused(4, "chat", "empty")


def test_a_question_too_long_is_refused_in_a_pipe(llmad, run, piped):
    piped("7" * 400)
    done = llmad("chat", run)
    assert done.code == 3
    assert "tokens" in done.err


def test_questions_that_are_no_text_are_refused(llmad, run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    done = llmad("chat", run)
    assert (done.code, done.out) == (3, "")
    assert "the questions cannot be read" in done.err


@pytest.fixture
def typed(monkeypatch):
    """Type lines at the prompt; an exception is raised where it stands."""

    def typed(*lines):
        waiting = iter(lines)
        monkeypatch.setattr("builtins.input", lambda _: next(waiting, None) or _leave())

    return typed


def _leave():
    raise EOFError


def test_a_conversation_remembers_where_the_prompt_can(typed, capsys):
    heard = []

    def ask(question, before, say):
        heard.append((question, list(before)))
        say("an answer\x1b[31m")
        return "an answer"

    typed("a", "b")
    command._converse(ask, remembers=True)
    assert heard == [("a", []), ("b", [("a", "an answer")])]
    assert capsys.readouterr().out == "an answer\\x1b[31m\n" * 2 + "\n"
    heard.clear()
    typed("a", "  ", "b")
    command._converse(ask, remembers=False)
    assert heard == [("a", []), ("b", [])]


def test_an_interrupt_ends_an_answer_and_not_the_conversation(typed, capsys):
    def ask(question, before, say):
        if question == "a":
            raise KeyboardInterrupt
        say(f"{question}, {before}")
        return question

    typed("a", "b")
    command._converse(ask, remembers=True)
    assert "b, []" in capsys.readouterr().out


def test_what_is_too_long_is_told_and_forgotten(typed, capsys):
    from llmad.errors import DataError

    heard = []

    def ask(question, before, say):
        heard.append(len(before))
        if question == "b":
            raise DataError("too-long", "no room", "ask a shorter one")
        return question

    typed("a", "b", "c")
    command._converse(ask, remembers=True)
    assert heard == [0, 1, 0]
    assert capsys.readouterr().err == "error: no room  [too-long]\nhint: earlier turns are forgotten\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_a_terminal_has_a_prompt_and_is_left_by_its_end(run, warm):
    master, terminal = os.openpty()
    words = [warm / "llmad", "chat", run, "--max-new-tokens", "5"]
    with subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE) as process:
        os.close(terminal)
        try:
            _until(master, b"> ")
            os.write(master, b"1 + 1?\n")
            _until(master, b"> ")
            os.write(master, b"\x04")
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
            os.close(master)
    assert process.returncode == 0, said


def _until(master, text):
    shown = b""
    while not shown.endswith(text):
        ready, _, _ = select.select([master], [], [], 60)
        assert ready, shown
        shown += os.read(master, 1000)
