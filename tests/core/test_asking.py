"""Several models on one base: their answers are kept as they come, and an evaluation goes on where it was stopped."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import llmad
from llmad import pretrained
from llmad.asking import Sheet, ask, check_changes
from llmad.errors import LlmadWarning, ModelError
from llmad.exam import Manner
from llmad.pretrained import Pretrained
from llmad.registry import registry

TIMES = ("seconds", "tokens_per_second")


@pytest.fixture(scope="module")
def task():
    return replace(registry().task("arithmetic"), max_new_tokens=8)


@pytest.fixture
def base(folder, perturb):
    own = pretrained.load(folder)
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        llmad.attach(own.model, "lora", name)
        perturb(own.model, name=name, size=0.5)
    return own


@pytest.fixture
def sheets(task, tmp_path):
    rows = task.rows("test", 10, 0)

    def sheets(place):
        hashes = {"base": "b", "adapter": None, "data": "d"}
        return [
            Sheet(who, label, task, rows, task.prompt, Manner("strict", 8), (tmp_path / place / label,), hashes)
            for label, who in {"base": (), "a": ("a",), "b": ("b",)}.items()
        ]

    return sheets


def content(folder):
    """Every file under a folder; scores without their times."""
    found = {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}
    for name, text in found.items():
        if name.endswith("scores.json"):
            scores = json.loads(text)["scores"]
            found[name] = [{key: value for key, value in score.items() if key not in TIMES} for score in scores]
    return found


class Killed(BaseException):
    """Stands for a kill: nothing is cleaned up for it."""


@pytest.mark.parametrize("kills", [[1], [9, 17], [4, 11, 13, 22, 28]])
def test_an_evaluation_that_was_killed_ends_as_one_that_was_not(base, sheets, tmp_path, kills):
    ask(base, sheets("whole"), 4, lambda _: None)
    for after in kills:
        fresh = []

        def dies(event, fresh=fresh, after=after):
            fresh.append(event)
            if len(fresh) == after:
                raise Killed

        with pytest.raises(Killed):
            ask(base, sheets("killed"), 4, dies)
    ask(base, sheets("killed"), 4, lambda _: None)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_what_was_answered_is_not_asked_again(base, sheets, monkeypatch):
    from llmad import asking

    asked = []
    real = asking.answer_batch
    monkeypatch.setattr(asking, "answer_batch", lambda *words, **more: asked.extend(words[3]) or real(*words, **more))
    seen = []

    def dies(event):
        seen.append(event)
        if len(seen) == 20:
            raise Killed

    with pytest.raises(Killed):
        ask(base, sheets("killed"), 4, dies)
    before, told = len(asked), []
    ask(base, sheets("killed"), 4, told.append)
    assert before >= 20
    assert len(asked) - before < 30 - 12
    assert len(told) == 30  # also those that were known


def test_answers_of_something_else_are_not_taken_over(base, sheets, tmp_path):
    def dies(_):
        raise Killed

    with pytest.raises(Killed):
        ask(base, sheets("here"), 4, dies)
    others = [replace(sheet, hashes={**sheet.hashes, "data": "e"}) for sheet in sheets("here")]
    told = []
    ask(base, others, 4, told.append)
    assert len(told) == 30
    assert {
        score["hashes"]["data"] for score in json.loads((tmp_path / "here/a/scores.json").read_text())["scores"]
    } == {"e"}


def test_no_journal_is_left(base, sheets, tmp_path):
    ask(base, sheets("whole"), 64, lambda _: None)
    assert not list(tmp_path.rglob("*.partial"))
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "arithmetic.jsonl",
        "base-arithmetic.jsonl",
        "scores.json",
    }


@pytest.mark.parametrize("size", [1, 4, 12])
def test_batches_order_and_company_do_not_change_the_scores(base, sheets, size):
    together = ask(base, sheets(f"together-{size}"), size, lambda _: None)
    apart = ask(base, sheets(f"apart-{size}"), 64, lambda _: None, mix=False)
    turned = [replace(sheet, rows=sheet.rows[::-1]) for sheet in sheets(f"turned-{size}")]
    for one, other, third in zip(together, apart, ask(base, turned, size, lambda _: None), strict=True):
        assert one.score.correct == other.score.correct == third.score.correct
        assert one.score.unparsed == other.score.unparsed == third.score.unparsed


def test_the_bases_answers_go_to_every_place(base, sheets, tmp_path):
    shared, *_ = sheets("one")
    ask(base, [replace(shared, places=(tmp_path / "one", tmp_path / "two"))], 64, lambda _: None)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_hashes_tell_what_decides_on_the_answers(sheets):
    _, sheet, _ = sheets("x")
    others = [
        replace(sheet, prompt=replace(sheet.prompt, lead="!")),
        replace(sheet, manner=replace(sheet.manner, max_new_tokens=9)),
        replace(sheet, hashes={**sheet.hashes, "adapter": "c"}),
    ]
    assert len({json.dumps(one.all_hashes()) for one in [sheet, *others]}) == 4
    assert sheet.all_hashes().keys() == {"base", "adapter", "data", "prompt", "options"}


def test_an_adapter_that_changes_nothing_is_refused(folder, sheets):
    own = pretrained.load(folder)
    llmad.attach(own.model, "lora", "a")
    with pytest.raises(ModelError, match="a: the adapter changes nothing") as error:
        check_changes(own, sheets("x")[1])
    assert error.value.code == "changes-nothing"


def test_an_adapter_that_changes_something_is_not(base, sheets):
    for sheet in sheets("x")[1:]:
        check_changes(base, sheet)


def test_a_question_that_is_too_long_is_not_asked_to_see_whether_an_adapter_acts(tokenizer, sheets):
    sizes = {"n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 4}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))  # its positions are a table, and end
    own = Pretrained("tiny", gpt2, tokenizer)
    llmad.attach(own.model, "lora", "a")
    sheet = sheets("x")[1]
    long = {**sheet.rows[0], "instruction": "7" * 300}
    check_changes(own, replace(sheet, rows=[long]))
    with pytest.raises(ModelError, match="changes nothing"):
        check_changes(own, replace(sheet, rows=[long, *sheet.rows]))


def test_questions_that_are_too_long_are_said(base, sheets, task):
    sheet = sheets("long")[0]
    rows = [{**sheet.rows[0], "instruction": "7" * 300}, *sheet.rows[1:3]]
    with pytest.warns(LlmadWarning, match="base: 1 questions of arithmetic are longer than the model has positions"):
        (result,) = ask(base, [replace(sheet, rows=rows)], 4, lambda _: None)
    assert result.score.unparsed >= 1


def test_a_journal_that_is_no_journal_is_begun_anew(base, sheets, tmp_path):
    place = tmp_path / "torn" / "base"
    for text in (b"", b"{", b'{"identity": 1}\n', b"[]\nno JSON\n", b"\xff\n"):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "base-arithmetic.jsonl.partial").write_bytes(text)
        (result,) = ask(base, sheets("torn")[:1], 64, lambda _: None)
        assert result.score.n == 10
