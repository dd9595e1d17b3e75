"""The commonsense sets: what they offer, and that every real answer of theirs is read."""

import json
from pathlib import Path

import pytest

from llmad.registry import registry

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "commonsense"
FILES = sorted(DATA.glob("*/*.json"))
SETS = {
    "boolq": "true",
    "piqa": "solution2",
    "social_i_qa": "answer3",
    "hellaswag": "ending4",
    "winogrande": "option1",
    "arc-easy": "answer4",
    "arc-challenge": "answer5",
    "openbookqa": "answer1",
}


@pytest.mark.parametrize(("name", "label"), SETS.items())
def test_each_set_reads_its_labels_and_says_how_the_paper_asks(name, label):
    task = registry().task(name)
    judge = task.judge(label)
    assert judge.read(f"the correct answer is {label}", "strict") == judge.read(f"So {label}", "paper") == label
    assert judge.agree(label, label)
    assert task.released
    assert task.released.max_new_tokens == task.max_new_tokens == 32
    with pytest.raises(ValueError, match="'maybe' is none of"):
        task.judge("maybe")


@pytest.mark.parametrize("name", SETS)
def test_hub_places_are_pinned_and_have_right_answers(name):
    hub = registry().task(name).hub
    assert all(len(place.revision) == 40 for place in hub.values())
    assert hub["train"].split == "train"
    assert hub["test"].split == ("test" if name in ("arc-easy", "arc-challenge", "openbookqa") else "validation")


def test_the_free_task_reads_the_labels_of_all():
    task = registry().task("commonsense")
    for label in SETS.values():
        assert task.judge(label).read(f"the correct answer is {label}", "strict") == label
    assert task.files == {"train": "train.json"}


def test_folders_are_named_as_in_the_paper():
    assert registry().task("arc-challenge").files["test"] == "ARC-Challenge/test.json"


@pytest.mark.skipif(not FILES, reason=f"the commonsense sets are not at {DATA}")
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_right_answer_of_the_sets_is_read(path):
    for task in (registry().task(path.parent.name.lower()), registry().task("commonsense")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            judge = task.judge(row["answer"])
            for protocol in ("strict", "paper"):
                assert judge.agree(judge.read(row["output"], protocol), row["answer"])
