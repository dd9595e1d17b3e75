"""`llmad split` and `llmad leaks` as they are typed."""

import json

import pytest

NAMES = ("SVAMP", "AddSub")


@pytest.fixture
def sets(place):
    for name in NAMES:
        (place / "sets" / name).mkdir(parents=True)
        made = [{"instruction": f"{name} asks {word}?", "output": "2", "answer": "2"} for word in "abcdefghij"]
        (place / "sets" / name / "test.json").write_text(json.dumps(made))
    return "sets"


def test_a_split_by_seed_and_the_leaks_of_its_training_rows(llmad, sets):
    done = llmad("split", sets, "--output", "out", "--seed", 3, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [(row["set"], row["train"], row["test"]) for row in found["sets"]] == [
        ("addsub", 8, 2),
        ("svamp", 8, 2),
        ("all", 16, 4),
    ]
    again = llmad("leaks", "out/train.json", "--data", "out", "--json")
    assert [(row["task"], row["n"], row["exact"]) for row in json.loads(again.out)["leaks"]] == [
        ("addsub", 2, 0),
        ("svamp", 2, 0),
    ]
    whole = llmad("leaks", "out/train.json", "--data", sets)
    assert "svamp\t10\t8\t8" in whole.out.splitlines()
    assert "16 training rows; 0 ask what another one asks" in whole.out


def test_a_split_is_rebuilt_from_its_training_file(llmad, sets, place):
    llmad("split", sets, "--output", "out")
    done = llmad("split", sets, "--output", "again", "--training", "out/train.json")
    assert done.code == 0, done.err
    for name in NAMES:
        file = f"{name}/test.json"
        assert json.loads((place / "again" / file).read_text()) == json.loads((place / "out" / file).read_text())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["split", "missing", "-o", "out"], 3, "no such folder"),
        (["split", "sets", "-o", "sets"], 2, "is not empty"),
        (["split", "sets", "-o", "out", "--share", "1"], 2, "one side without rows"),
        (["split", "sets", "-o", "out", "--task", "svmp"], 2, "did you mean svamp"),
        (["split", "sets", "-o", "out", "--training", "missing.json"], 3, "missing.json"),
        (["leaks", "missing.json", "-d", "sets"], 3, "missing.json"),
    ],
)
def test_what_cannot_be_meant_is_refused(refused, sets, words, code, said):
    assert said in refused(code, *words)
