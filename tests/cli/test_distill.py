"""`llmad distill`: against an endpoint that fails as it is told, and against a model on this machine."""

import io
import json
import signal
import subprocess
import sys
import time
from threading import Event

import pytest
from rich.console import Console

from llmad import rows as row_files
from llmad.distill import Answered
from llmad.posting import ATTEMPTS
from llmad_cli import distill as command
from tests.stub_endpoint import gigantic, hang, leave, status, stub, truncated

KEY = "sk-very-secret-key"
ROWS = [{"instruction": f"{number} + 1?", "input": "", "answer": str(number + 1)} for number in range(10)]
PROGRAM = "from llmad_cli.app import main; main()"


def teach(messages):
    """Right of even numbers; wrong of odd ones but 5, to which there is no answer, and 7, which never ends."""
    number = int(messages[0]["content"].split()[1])
    if number in (5, 7):
        return ("Hm.", "length" if number == 7 else "stop")
    return f"{number} and 1. The answer is {number + 1 + number % 2}."


@pytest.fixture
def server():
    with stub(teach) as server:
        yield server


@pytest.fixture
def words(server, place, monkeypatch):
    """The words of a command that works."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("llmad.posting.sleep", lambda _: None)
    (place / "rows.json").write_text(json.dumps(ROWS))
    asked = ("--task", "gsm8k", "--data", "rows.json", "--teacher", server.url, "--model", "m")
    return ("distill", *asked, "--output", "out.json")


def rationales(path):
    return [(row["instruction"], row["output"]) for row in row_files.read(path, "train").rows]


def test_right_rationales_become_rows_to_train_on(llmad, words, place):
    done = llmad(*words)
    assert done.code == 0, done.err
    assert rationales(place / "out.json") == [
        (f"{number} + 1?", f"{number} and 1. The answer is {number + 1}.") for number in range(0, 10, 2)
    ]
    facts = {line[:11].strip(): line[11:] for line in done.out.splitlines()}
    assert facts["asked"] == "10 rows of gsm8k"
    assert [facts[name] for name in ("right", "wrong", "no answer", "cut off")] == ["5", "3", "1", "1"]
    assert facts["kept"] == "5 in out.json"
    assert "row 10/10  50.0% right" in done.err
    assert sorted(path.name for path in place.iterdir()) == ["out.json", "rows.json"]


def test_json_for_machines_and_nothing_else(llmad, words, server):
    found = json.loads(llmad(*words, "--json", "--keep-wrong", "--limit", 8).out)
    assert found == {
        "task": "gsm8k", "teacher": server.url, "output": "out.json", "rows": 8, "resumed": 0,
        "verdicts": {"right": 4, "wrong": 2, "no answer": 1, "cut off": 1}, "kept": 7,
    }  # fmt: skip


def test_the_options_reach_the_endpoint(llmad, words, server):
    options = ("--temperature", 0.5, "--seed", 4, "--max-new-tokens", 77, "--limit", 1)
    assert llmad(*words, *options).code == 0
    ((headers, body),) = server.seen
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert {name: body[name] for name in ("model", "temperature", "seed", "max_tokens")} == {
        "model": "m", "temperature": 0.5, "seed": 4, "max_tokens": 77,
    }  # fmt: skip


def test_the_key_is_nowhere_but_in_the_header(llmad, words, server, place):
    server.answer = lambda _: f"{KEY}. The answer is 1."
    done = llmad(*words, "--limit", 1)
    server.faults = [None, status(401, {"error": {"message": f"Incorrect API key: {KEY}"}})]
    failed = llmad(*words[:-1], "other.json", "--batch-size", 1)
    assert (done.code, failed.code) == (0, 4)
    texts = [done.out, done.err, failed.out, failed.err, *(path.read_text() for path in place.iterdir())]
    assert len(texts) == 4 + 3  # rows.json, out.json and the journal
    assert not [text for text in texts if KEY in text]


FAULTS = {
    "unauthorised": (status(401), "answers 401"),
    "forbidden": (status(403), "answers 403"),
    "missing": (status(404, {"error": {"message": "no model m"}}), "answers 404: no model m"),
    "bad": (status(400, b"<b>no</b>"), "answers 400: <b>no</b>"),
    "busy": (status(429, Retry_After="7"), "answers 429, 6 times"),
    "far": (status(429, Retry_After="86400"), "asks to wait 86400 s"),
    "broken": (status(500), "answers 500, 6 times"),
    "gone": (leave, "no answer: "),
    "truncated": (truncated, "no answer: "),
    "hanging": (hang, "timed out, 6 times"),
    "redirect": (status(307, Location="https://elsewhere/v1"), "redirects to https://elsewhere/v1, which is not"),
    "malformed": (status(200, b"{"), "without JSON"),
    "empty": (status(200, {"choices": []}), "without choices[0]"),
    "gigantic": (gigantic, "more than 4 MiB"),
}


@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_an_endpoint_that_fails_is_one_line(llmad, words, server, place, fault, said):
    server.faults = [fault] * ATTEMPTS
    done = llmad(*words, "--batch-size", 1, "--timeout", 0.2 if fault is hang else 60)
    assert done.code == 4
    assert said in done.err
    assert done.err.count("error: ") == 1
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not (place / "out.json").exists()
    server.faults = []
    assert llmad(*words).code == 0  # the same command goes on


USAGE = {
    "no teacher": ({"--teacher": None}, "--teacher"),
    "no output": ({"--output": None}, "--output"),
    "task": ({"--task": "gsm8"}, "did you mean gsm8k"),
    "no model": ({"--model": None}, "give --model"),
    "plain http": ({"--teacher": "http://example.com/v1"}, "write https://example.com/v1"),
    "no scheme": ({"--teacher": "127.0.0.1:8000/v1"}, "is it an endpoint"),
    "other scheme": ({"--teacher": "file:///etc/passwd"}, "none of http or https"),
    "password": ({"--teacher": "https://me:secret@host/v1"}, "has no user"),
    "local model": ({"--teacher": "abacus"}, "--model is for an endpoint"),
    "no such model": ({"--teacher": "abcus", "--model": None}, "did you mean abacus"),
    "shape": ({"--teacher": "llama-7b", "--model": None}, "known by its shape only"),
    "quantize": ({"--quantize": "nf4"}, "are for a local teacher"),
    "quantizer": ({"--quantize": "nf5"}, "nf4"),
    "device": ({"--device-map": "7up"}, "--device-map"),
    "split": ({"--split": "dev"}, "--split"),
    "temperature": ({"--temperature": "-1"}, "--temperature"),
    "limit": ({"--limit": "0"}, "--limit"),
    "there": ({"--output": "rows.json"}, "rows.json is there already"),
}


def changed(words, change):
    command, options = words[0], dict(zip(words[1::2], words[2::2], strict=True)) | change
    return (command, *(word for pair in options.items() if pair[1] is not None for word in pair))


@pytest.mark.parametrize(("change", "said"), USAGE.values(), ids=USAGE.keys())
def test_what_cannot_be_meant_is_refused(refused, words, server, change, said):
    assert said in refused(2, *changed(words, change))
    assert server.seen == []


def test_a_key_that_no_header_carries_is_refused(refused, words, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Other: 1")
    assert KEY not in refused(2, *words)


@pytest.mark.parametrize(
    ("content", "said"),
    [("[]", "holds no rows"), ("{", "not JSON"), ('[{"instruction": "1?"}]', "row 1 has no field 'answer'"),
     ('[{"instruction": "1?", "answer": "two"}]', "row 1: "), (None, "there is no such file")],
)  # fmt: skip
def test_data_that_cannot_be_used_is_refused(refused, words, server, place, content, said):
    (place / "rows.json").unlink()
    if content is not None:
        (place / "rows.json").write_text(content)
    assert said in refused(3, *words)
    assert server.seen == []


def test_nothing_to_keep_is_refused(llmad, words, server, place):
    server.answer = lambda _: "The answer is 99."
    done = llmad(*words)
    assert done.code == 3
    assert "0 right, 10 wrong" in done.err
    assert not (place / "out.json").exists()


def test_an_output_that_cannot_be_written_is_refused(refused, words, place):
    (place / "file").touch()
    assert "file is in the way" in refused(6, *changed(words, {"--output": "file/out.json"}))


def test_the_journal_of_another_run_is_refused(llmad, refused, words, server):
    server.faults = [None, status(401)]
    assert llmad(*words, "--batch-size", 1).code == 4
    server.seen.clear()
    said = refused(7, *words, "--seed", 1, "--max-new-tokens", 9)
    assert "out.json.journal.jsonl is of another run: max_new_tokens 512, now 9, seed 0, now 1" in said
    assert server.seen == []


def test_what_was_mistyped_can_be_mended(llmad, words, server):
    server.faults = [status(404, {"error": {"message": "no model n"}})] * 8
    assert llmad(*changed(words, {"--model": "n"})).code == 4
    server.faults = []
    assert llmad(*words).code == 0


def test_a_run_that_is_killed_goes_on_and_ends_the_same(llmad, words, server, place):
    assert llmad(*changed(words, {"--output": "whole.json"})).code == 0
    for survived in (0, 1, 4, 9):
        reached = Event()
        server.seen.clear()
        server.faults = [None] * survived + [lambda handler, reached=reached: (reached.set(), hang(handler))]
        command = [sys.executable, "-c", PROGRAM, *words, "--batch-size", "1", "--output", f"{survived}.json"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        journal = (place / f"{survived}.json.journal.jsonl").read_bytes()
        assert len(journal.splitlines()) >= survived  # the header; second questions are requests too
        server.seen.clear()
        done = llmad(*words, "--output", f"{survived}.json", "--json")
        assert json.loads(done.out)["resumed"] == len(journal.splitlines()) - 1
        assert (place / f"{survived}.json").read_bytes() == (place / "whole.json").read_bytes()


def test_a_signal_ends_it_at_once(words, server, place):
    reached = Event()
    server.faults = [lambda handler: (reached.set(), hang(handler))] * 8
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stderr=subprocess.PIPE, text=True)
    assert reached.wait(60)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 128 + signal.SIGTERM
    assert said.startswith("error: stopped by SIGTERM")
    assert "Traceback" not in said


def test_an_endpoint_loads_no_torch(words, python, place):
    code = (
        f"import sys\nsys.argv = {['llmad', *words]!r}\nfrom llmad_cli.app import main\ntry: main()\n"
        "except SystemExit as stop: print(stop.code, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert python(code, OPENAI_API_KEY=KEY).splitlines()[-1] == "0 False False"


def test_a_local_model_teaches(llmad, place, folder):
    words = ("distill", "--task", "arithmetic", "--teacher", folder, "--output", "out.json", "--limit", 3)
    done = llmad(*words, "--max-new-tokens", 5)
    assert done.code == 3, done.err
    assert "3 cut off" in done.err  # a random model does not come to an end


def test_the_embedded_backbone_teaches(llmad, place):
    words = ("distill", "--task", "arithmetic", "--teacher", "abacus", "--limit", 4, "--max-new-tokens", 40)
    done = llmad(*words, "--output", "out.jsonl", "--keep-wrong", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["rows"], sum(found["verdicts"].values())) == (4, 4)
    assert len(rationales(place / "out.jsonl")) == found["kept"] > 0
    assert all("The answer is" in text for _, text in rationales(place / "out.jsonl"))


def test_a_proxy_of_the_environment_sees_nothing_of_this_machine(llmad, words, monkeypatch):
    with stub(teach) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        assert llmad(*words).code == 0
        assert proxy.seen == []


def test_a_bar_is_drawn_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(command, "err", Console(file=stream, force_terminal=True, width=100))
    with command.DistillingView() as view:
        view.observe(Answered(1, 4, "right"))
        view.observe(Answered(2, 4, "wrong"))
    assert "2/4" in stream.getvalue()
    assert "50.0% right" in stream.getvalue()
    assert "row " not in stream.getvalue()
