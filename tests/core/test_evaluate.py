"""Greedy answers to rows: the same whatever the batch, the order and the mode of the model."""

import json
import shutil
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

import llmad
from llmad import pretrained
from llmad.errors import DataError, ModelError
from llmad.evaluate import Question, answer_batch, batches, questions, score
from llmad.exam import Manner
from llmad.registry import registry


@pytest.fixture(scope="module")
def base(folder):
    return pretrained.load(folder)


@pytest.fixture(scope="module")
def task():
    return replace(registry().task("arithmetic"), max_new_tokens=12)


@pytest.fixture(scope="module")
def rows(task):
    return task.rows("test", 12, 0)


def texts(base, task, rows, **more):
    _, answers = score(base.model, base.tokenizer, task, rows, task.prompt, **more)
    return [answer.output_pred for answer in answers]


def test_the_batch_size_does_not_change_the_answers(base, task, rows):
    alone = texts(base, task, rows, batch_size=1)
    assert len(set(alone)) > 1
    assert texts(base, task, rows, batch_size=64) == alone
    assert texts(base, task, rows, batch_size=5) == alone


def test_the_order_of_rows_does_not_change_the_answers(base, task, rows):
    assert texts(base, task, rows[::-1]) == texts(base, task, rows)[::-1]


def test_dropout_is_off_while_scoring(folder, task, rows, perturb):
    own = pretrained.load(folder)
    llmad.attach(own.model, "lora[dropout=0.9]")
    perturb(own.model, size=0.5)
    own.model.train()
    first = texts(own, task, rows[:4])
    assert texts(own, task, rows[:4]) == first
    assert not own.model.training


def test_an_adapter_changes_the_answers(folder, base, task, rows, perturb):
    own = pretrained.load(folder)
    llmad.attach(own.model, "lora")
    assert texts(own, task, rows) == texts(base, task, rows)
    perturb(own.model, size=0.5)
    assert texts(own, task, rows) != texts(base, task, rows)


def test_answers_end_at_the_end_of_sequence(folder, task, rows):
    own = pretrained.load(folder)
    with torch.no_grad():
        own.model.lm_head.weight.zero_()
        own.model.lm_head.weight[2] = 1.0
        own.model.model.norm.weight.abs_()
    _, answers = score(own.model, own.tokenizer, task, rows[:3], task.prompt)
    assert all(answer.output_pred == "" or answer.tokens == 12 for answer in answers)
    assert "<eos>" not in "".join(answer.output_pred for answer in answers)


def test_the_models_own_generation_settings_do_not_change_the_answers(folder, base, task, rows, tmp_path):
    penalised = shutil.copytree(folder, tmp_path / "penalised")
    settings = {"repetition_penalty": 5.0, "do_sample": True, "temperature": 9.0, "eos_token_id": [5]}
    (penalised / "generation_config.json").write_text(json.dumps(settings))
    own = pretrained.load(str(penalised))
    assert texts(own, task, rows) == texts(base, task, rows)


def test_answers_come_in_the_order_of_the_rows_and_are_told_as_they_are_found(base, task, rows):
    seen = []
    _, answers = score(base.model, base.tokenizer, task, rows, task.prompt, observe=seen.append)
    assert [answer.index for answer in answers] == list(range(12))
    assert [answer.instruction for answer in answers] == [row["instruction"] for row in rows]
    assert sorted(seen, key=lambda answer: answer.index) == answers


def test_a_right_answer_that_cannot_be_read_is_refused_before_anything_is_generated(task, rows):
    wrong = [rows[0], {**rows[1], "answer": "seven"}]
    with pytest.raises(DataError, match=r"task arithmetic, row 2: .*seven"):
        score(None, None, task, wrong, task.prompt)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_does_not_change_the_answers(folder, base, task, rows, side):
    own = pretrained.load(folder)
    own.tokenizer.padding_side = side
    assert texts(own, task, rows, batch_size=4) == texts(base, task, rows, batch_size=12)


@dataclass(frozen=True)
class Counting:
    """Takes an answer for declared once the text is so long."""

    enough: int

    def read(self, text, protocol):
        return str(len(text))

    def agree(self, answer, gold):
        return True

    def settled(self, text):
        return len(text) >= self.enough


def test_a_row_stops_when_its_answer_is_declared(base, task, rows):
    whole = texts(base, task, rows)
    counting = replace(task, judge=lambda gold: Counting(3 + int(gold) % 7))
    stopped = texts(base, counting, rows, batch_size=5)
    assert stopped == texts(base, counting, rows, batch_size=1)
    assert stopped != whole
    for row, text, full in zip(rows, stopped, whole, strict=True):
        assert full.startswith(text)
        assert len(text) >= min(3 + int(row["answer"]) % 7, len(full))
    manner = Manner("strict", task.max_new_tokens, stop=False)
    assert texts(base, counting, rows, manner=manner) == whole


def test_a_judge_that_cannot_tell_lets_the_text_come_to_its_end(base, task, rows):
    deaf = replace(task, judge=lambda gold: SimpleNamespace(read=lambda *_: "1", agree=lambda *_: True))
    assert texts(base, deaf, rows) == texts(base, task, rows, manner=Manner("strict", 12, stop=False))


def test_no_answer_goes_past_the_models_positions(base, task, rows):
    longer = [{**rows[0], "instruction": "7" * count} for count in (200, 229, 240, 300)]
    _, answers = score(base.model, base.tokenizer, replace(task, max_new_tokens=20), longer, task.prompt)
    room = [256 - len(base.tokenizer(task.prompt.ask(row))["input_ids"]) for row in longer]
    assert room[0] > 20 > room[2] > 0 > room[3]
    assert all(answer.tokens <= max(0, min(20, left)) for answer, left in zip(answers, room, strict=True))
    assert (answers[3].output_pred, answers[3].prediction, answers[3].correct) == ("", None, False)
    alone = [texts(base, replace(task, max_new_tokens=20), [row])[0] for row in longer]
    assert [answer.output_pred for answer in answers] == alone


def test_beams_are_searched_where_the_manner_says_so(base, task, rows):
    greedy, wide = (texts(base, task, rows, manner=Manner("paper", 12, beams, False)) for beams in (1, 4))
    assert greedy != wide


def question(who, length, room=9):
    return Question((who,) if who else (), 0, {}, tuple(range(length)), room, None)


def test_full_batches_are_of_one_adapter_and_what_is_left_over_is_put_together():
    asked = [question(who, length) for who in ("", "a", "b") for length in (5, 4, 3, 2, 1)]
    cut = batches(asked, 2, mix=True)
    assert sorted(len(batch) for batch in cut) == [1, 2, 2, 2, 2, 2, 2, 2]
    mixed = [batch for batch in cut if len({one.who for one in batch}) > 1]
    assert [len(one.ids) for batch in mixed for one in batch] == [1, 1]
    assert all(len({one.who for one in batch}) == 1 for batch in batches(asked, 2))
    lengths = [len(batch[0].ids) for batch in cut]
    assert lengths == sorted(lengths, reverse=True)


def test_answers_of_a_batch_may_be_equally_long():
    cut = batches([question("a", 3, 9), question("a", 3, 4), question("b", 3, 4)], 8, mix=True)
    assert sorted(len(batch) for batch in cut) == [1, 2]


def test_rows_of_several_adapters_in_one_batch_are_answered_as_alone(folder, task, rows, perturb):
    own = pretrained.load(folder)
    for seed, (name, spec) in enumerate([("a", "lora"), ("b", "series"), ("c", "prefix")]):
        torch.manual_seed(seed)
        llmad.attach(own.model, spec, name)
        perturb(own.model, name=name, size=0.5)
    manner = Manner("strict", 12)
    whos = [(), ("a",), ("b",), ("c",)]
    asked = [questions(own.model, own.tokenizer, task, rows, task.prompt, manner, who) for who in whos]
    flat = [one for each in zip(*asked, strict=True) for one in each]
    mixed = answer_batch(own.model, own.tokenizer, task, flat, manner, named=True)
    alone = [answer_batch(own.model, own.tokenizer, task, each, manner, named=True) for each in asked]
    assert mixed == [answer for each in zip(*alone, strict=True) for answer in each]
    assert len({tuple(answer.output_pred for answer in each) for each in alone}) == 4


def test_a_model_that_stays_in_training_mode_is_not_asked(base, task, rows):
    stubborn = torch.nn.Dropout()
    stubborn.train = lambda mode=True: torch.nn.Module.train(stubborn, True)
    base.model.add_module("stubborn", stubborn)
    try:
        with pytest.raises(ModelError, match="stubborn stays in training mode"):
            texts(base, task, rows[:1])
    finally:
        del base.model.stubborn
