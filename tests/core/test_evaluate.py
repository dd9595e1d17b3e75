"""Greedy answers to rows: the same whatever the batch, the order and the mode of the model."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import llmad
from llmad import pretrained
from llmad.errors import DataError
from llmad.evaluate import score
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
