"""Rows to ids with labels on the answer alone, and ids to batches in an order that the seed fixes."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from llmad import Prompt
from llmad.data import IGNORED, Example, batches, encode, packed, pad_token, padded
from llmad.errors import DataError, ModelError

PROMPT = Prompt(question="Question: {instruction}\nAnswer:", lead=" ")
EOS = 2
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
lengths = st.lists(st.integers(1, 50), min_size=1, max_size=200)


def row(instruction="3 + 4?", output="3 + 4 = 7."):
    return {"instruction": instruction, "output": output}


def learnt(example):
    return [token for token, flag in zip(example.ids, example.labelled, strict=True) if flag]


def with_template(tokenizer, single):
    """A copy that adds special tokens as LLaMA's and BLOOM's tokenizers do."""
    import copy

    changed = copy.deepcopy(tokenizer)
    pairs = [("<bos>", 1), ("<eos>", EOS)]
    changed.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)
    return changed


def test_the_answer_and_the_end_are_learnt_and_nothing_else(tokenizer):
    (example,) = encode([row()], PROMPT, tokenizer, 99).examples
    assert tokenizer.decode(example.ids) == "Question: 3 + 4?\nAnswer: 3 + 4 = 7.<eos>"
    assert tokenizer.decode(learnt(example)) == " 3 + 4 = 7.<eos>"


def test_the_whole_text_can_be_learnt(tokenizer):
    (example,) = encode([row()], PROMPT, tokenizer, 99, whole=True).examples
    assert all(example.labelled)


@given(instruction=words, output=words.filter(str.strip))
def test_the_learnt_ids_spell_the_answer(tokenizer, instruction, output):
    (example,) = encode([row(instruction, output)], PROMPT, tokenizer, 10_000).examples
    assert tokenizer.decode(learnt(example)[:-1]).endswith(output.strip())
    assert example.ids.count(EOS) == 1
    assert example.ids[-1] == EOS
    assert example.labelled == tuple(sorted(example.labelled))


@pytest.mark.parametrize("single", ["<bos> $A", "<bos> $A <eos>", "$A <eos>"])
def test_special_tokens_are_not_doubled_and_not_learnt_but_for_the_end(tokenizer, single):
    special = with_template(tokenizer, single)
    for whole in (False, True):
        (example,) = encode([row()], PROMPT, special, 99, whole).examples
        assert example.ids.count(EOS) == 1
        assert example.ids.count(1) == ("<bos>" in single)
        assert 1 not in learnt(example)
        assert learnt(example)[-1] == EOS


def test_a_token_of_spaces_is_learnt_where_the_tokenizer_trims_its_offset(tokenizer):
    import copy

    trimming = copy.deepcopy(tokenizer)
    trimming.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    (example,) = encode([row(output="3 4")], PROMPT, trimming, 99).examples
    assert trimming.decode(learnt(example)) == " 3 4<eos>"


def test_rows_that_are_too_long_are_left_out_and_counted(tokenizer):
    encoded = encode([row(), row(instruction="1 " * 200)], PROMPT, tokenizer, 100)
    assert (len(encoded.examples), encoded.left_out) == (1, 1)
    assert encoded.tokens == len(encoded.examples[0].ids)
    assert encoded.trained_tokens == sum(encoded.examples[0].labelled)


def test_rows_that_are_all_too_long_are_refused(tokenizer):
    with pytest.raises(DataError, match="longer than 3 tokens; the shortest has"):
        encode([row()], PROMPT, tokenizer, 3)


@pytest.mark.parametrize("wrong", [{"is_fast": False, "eos_token_id": 2}, {"is_fast": True, "eos_token_id": None}])
def test_a_tokenizer_without_offsets_or_end_is_refused(wrong):
    with pytest.raises(ModelError, match="end-of-sequence"):
        encode([row()], PROMPT, SimpleNamespace(**wrong), 9)


@given(lengths, st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_each_row_comes_once_an_epoch(lengths, size, seed, epoch):
    order = batches(lengths, size, seed, epoch)
    assert sorted(number for batch in order for number in batch) == list(range(len(lengths)))
    assert sum(len(batch) < size for batch in order) <= 1
    assert all(0 < len(batch) <= size for batch in order)


@given(lengths, st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_the_order_is_a_pure_function(lengths, size, seed, epoch):
    import random

    random.seed(epoch)
    first = batches(lengths, size, seed, epoch)
    random.seed(seed + 7)
    assert batches(lengths, size, seed, epoch) == first


def test_seed_and_epoch_change_the_order():
    plain = batches([1] * 50, 4, 0, 0)
    assert plain not in (batches([1] * 50, 4, 1, 0), batches([1] * 50, 4, 0, 1))


def test_rows_of_like_length_come_together():
    order = batches(list(range(64)), 2, 0, 0)
    assert all(abs(first - second) == 1 for first, second in order)


ROWS = st.lists(
    st.lists(st.tuples(st.integers(3, 90), st.booleans()), min_size=1, max_size=9).map(
        lambda row: Example(tuple(token for token, _ in row), tuple(flag for _, flag in row))
    ),
    min_size=1,
    max_size=5,
)


def wanted(example):
    """What is learnt of a row: nothing before its first token predicts it."""
    flags = (False, *example.labelled[1:])
    return [token if flag else IGNORED for token, flag in zip(example.ids, flags, strict=True)]


@given(ROWS)
def test_padding_is_on_the_right_and_labels_are_what_is_learnt(examples):
    batch = padded(examples, 0)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert ids.shape == mask.shape == batch.labels.shape
    assert ids.dtype == batch.labels.dtype == torch.long
    assert [one.learnt for one in examples] == [sum(label != IGNORED for label in wanted(one)) for one in examples]
    for place, example in enumerate(examples):
        size = len(example.ids)
        assert batch.lengths[place] == size
        assert ids[place].tolist() == [*example.ids, *[0] * (ids.shape[1] - size)]
        assert mask[place].sum() == mask[place, :size].sum() == size
        assert batch.labels[place, :size].tolist() == wanted(example)
        assert (batch.labels[place, size:] == IGNORED).all()


@given(ROWS)
def test_packed_rows_are_end_to_end_with_positions_of_their_own(examples):
    batch = packed(examples)
    assert batch.inputs["input_ids"].tolist() == [[token for one in examples for token in one.ids]]
    assert batch.inputs["position_ids"].tolist() == [[place for one in examples for place in range(len(one.ids))]]
    assert batch.inputs["attention_mask"].all()
    assert batch.labels.tolist() == [[label for one in examples for label in wanted(one)]]
    assert batch.lengths == tuple(len(one.ids) for one in examples)
    assert "position_ids" not in packed(examples, positions=False).inputs


def test_the_end_pads_where_there_is_no_padding_token():
    assert pad_token(SimpleNamespace(pad_token_id=None, eos_token_id=5)) == 5
    assert pad_token(SimpleNamespace(pad_token_id=0, eos_token_id=5)) == 0
