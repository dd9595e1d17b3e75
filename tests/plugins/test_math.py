"""The math sets: what they offer, and that every real answer of theirs is read."""

from pathlib import Path

import pytest

from llmad import rows
from llmad.registry import registry
from llmad_plugins.tasks.letters import LetterJudge
from llmad_plugins.tasks.math import judge
from llmad_plugins.tasks.numbers import NumberJudge

MATH = Path(__file__).parents[2].parent / "shared" / "data" / "math"
SETS = ["addsub", "aqua", "gsm8k", "multiarith", "singleeq", "svamp"]
present = pytest.mark.skipif(not MATH.is_dir(), reason=f"the math sets are not at {MATH}")


@pytest.mark.parametrize(("gold", "kind"), [
    ("4", NumberJudge), ("-4.5", NumberJudge), ("1,200", NumberJudge), ("C", LetterJudge), (" c ", LetterJudge),
])  # fmt: skip
def test_the_right_answer_says_which_judge(gold, kind):
    assert isinstance(judge(gold), kind)


@pytest.mark.parametrize("gold", ["seven", "", "F", "nan", "inf", "1/2"])
def test_a_right_answer_that_is_neither_is_refused(gold):
    with pytest.raises(ValueError, match=r"number|convert"):
        judge(gold)


def test_the_seven_sets_and_the_free_one_are_offered():
    assert {name for name, _ in registry().offers("task")} >= {"math", "mawps", *SETS}


@pytest.mark.parametrize("name", ["math", "mawps", *SETS])
def test_each_says_how_the_paper_asks_and_reads_its_own_layout(name):
    task = registry().task(name)
    assert task.released
    assert task.released.max_new_tokens == 256
    assert task.convert
    assert task.convert({"instruction": "1?"}) is None


@pytest.mark.parametrize("name", ["gsm8k", "aqua"])
def test_hub_places_are_pinned(name):
    hub = registry().task(name).hub
    assert set(hub) == {"train", "test"}
    assert all(len(place.revision) == 40 and place.split == split for split, place in hub.items())


@present
@pytest.mark.parametrize("name", SETS)
def test_every_right_answer_of_the_sets_is_read(name):
    found = rows.rows(registry().task(name), "test", str(MATH), 0, 0).rows
    assert found
    for row in found:
        own = judge(row["answer"])
        assert own.agree(own.read(f"The answer is {row['answer']}.", "strict"), row["answer"])


@present
@pytest.mark.parametrize(("name", "unread"), [
    ("addsub", 0), ("aqua", 2), ("gsm8k", 23), ("multiarith", 0), ("singleeq", 0), ("svamp", 0),
])  # fmt: skip
def test_strict_reads_every_rationale_that_declares_an_answer(name, unread):
    found = rows.rows(registry().task(name), "test", str(MATH), 0, 0).rows
    silent = [row["output"] for row in found if judge(row["answer"]).read(row["output"], "strict") is None]
    assert len(silent) == unread
    assert all(
        "answer is" not in text or text.endswith(("is unknown.", "2 or 3.", "x hours.", "pm.")) for text in silent
    )


@present
def test_strict_reads_what_the_training_set_teaches():
    found = rows.rows(registry().task("math"), "train", str(MATH), 0, 0).rows
    unread = [row["output"] for row in found if judge(row["answer"]).read(row["output"], "strict") is None]
    assert len(unread) == 19
    ambiguous = [text.rpartition("The answer is ")[2] for text in unread if "The answer is" in text]
    assert sorted(ambiguous) == ["18 + x hours.", "2 or 3.", "unknown."]


@present
def test_every_rationale_settles_where_it_ends():
    for row in rows.rows(registry().task("aqua"), "test", str(MATH), 0, 0).rows:
        read = LetterJudge().read(row["output"], "strict")
        assert LetterJudge().settled(row["output"]) is (read is not None)
