"""`llmad score`: answers of a file, scored without a model."""

import json

import pytest

ROWS = [
    {"output_pred": "the correct answer is answer1", "answer": "answer1"},
    {"output_pred": "Not answer3 but answer2", "answer": "answer3"},
    {"output_pred": "", "answer": "answer2"},
]


@pytest.fixture
def answers(place):
    path = place / "answers.json"
    path.write_text(json.dumps(ROWS))
    return path


def test_it_prints_rows_right_and_unread_answers(llmad, answers):
    done = llmad("score", answers, "--task", "arc-easy")
    assert done.code == 0
    name, n, correct, accuracy, *_, unparsed = done.out.splitlines()[0].split("\t")
    assert (name, n, correct, accuracy, unparsed) == ("arc-easy", "3", "1", "33.3%", "2")
    assert done.out.splitlines()[1] == f"answers of {answers}, protocol strict"


def test_it_prints_json(llmad, answers):
    done = llmad("score", answers, "--task", "arc-easy", "--protocol", "paper", "--json")
    found = json.loads(done.out)
    assert (found["task"], found["protocol"], found["n"], found["correct"], found["unparsed"]) == (
        *("arc-easy", "paper", 3, 2, 1),
    )
    assert found["answers"][1] == {"index": 1, "prediction": "answer3", "answer": "answer3", "correct": True}


def test_it_writes_the_same_json(llmad, answers, place):
    shown = llmad("score", answers, "--task", "arc-easy", "--json", "--output", place / "score.json").out
    assert json.loads((place / "score.json").read_text()) == json.loads(shown)


@pytest.mark.parametrize(("words", "code", "said"), [
    (("none.json", "--task", "boolq"), 3, "there is no such file"),
    (("answers.json", "--task", "boolq"), 3, "row 1: task boolq cannot read the right answer: 'answer1' is"),
    (("answers.json", "--task", "bolq"), 2, "bolq"),
    (("answers.json", "--task", "arc-easy", "--protocol", "papr"), 2, "there is no protocol 'papr'"),
    (("answers.json",), 2, "--task"),
    (("answers.json", "--task", "arc-easy", "--output", "none/score.json"), 6, "none/score.json"),
])  # fmt: skip
def test_what_cannot_be_scored_is_refused(refused, answers, words, code, said):
    assert said in refused(code, "score", *words)


def test_it_needs_no_torch(python, answers):
    code = (
        f"import sys\nsys.argv = ['llmad', 'score', {str(answers)!r}, '--task', 'arc-easy']\n"
        "from llmad_cli.app import main\ntry: main()\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    )
    assert python(code).splitlines()[-1] == "False"
