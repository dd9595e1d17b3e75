"""Packed rows: each computes what it computes alone, in every architecture that can keep rows apart."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import llmad
from llmad import packing
from llmad.batching import Batching, batching
from llmad.data import Example
from llmad.loss import answer_loss
from tests.zoo import VOCABULARY, build

PACKED = {
    "rows": ["llama", "opt", "gpt2", "gpt_neox", "phi", "phi3", "mistral", "mixtral", "qwen2", "qwen3_moe", "gemma2",
             "gemma3_text", "gpt_oss", "llama4_text", "cohere2", "starcoder2", "deepseek_v3", "ctrl"],
    "blocks": ["bloom", "gptj", "falcon", "codegen"],
}  # fmt: skip
WAYS = [(kind, how) for how, kinds in PACKED.items() for kind in kinds]


def rows(*lengths):
    """Rows of these lengths, with the last half of each learnt; longer than the zoo's windows of four tokens."""
    source = torch.Generator().manual_seed(sum(lengths))
    return [
        Example(
            tuple(torch.randint(3, VOCABULARY, (length,), generator=source).tolist()),
            tuple(place >= length // 2 for place in range(length)),
        )
        for length in lengths
    ]


def adapted(kind, spec="lora[sites=linear]"):
    """A model whose adapter does something."""
    model = build(kind).eval()
    llmad.attach(model, spec)
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in llmad.parameters(model):
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.1)
    return model


def gradients(model, how, examples):
    """The loss of a batch, and the gradients of the adapter."""
    batch = how.batch(examples)
    with how.within(model, batch):
        loss = answer_loss(model, batch.inputs, batch.labels) / sum(row.learnt for row in examples)
        loss.backward()
    found = {name: parameter.grad for name, parameter in llmad.parameters(model)}
    model.zero_grad()
    return float(loss.detach()), found


def assert_same(first, second):
    assert math.isclose(first[0], second[0], rel_tol=1e-5)
    assert any(grad is not None and grad.any() for grad in first[1].values())
    for name, grad in first[1].items():
        other = second[1][name]
        if grad is not None or other is not None:
            largest = float(grad.abs().max())
            assert torch.allclose(grad, other, rtol=0, atol=1e-5 * max(largest, 1e-2)), name


@pytest.mark.parametrize(("kind", "how"), WAYS, ids=[kind for kind, _ in WAYS])
def test_gradients_are_those_of_padded_rows(kind, how):
    model, examples = adapted(kind), rows(9, 5, 12, 2, 7)
    found = batching(model, 0, wanted=True)
    assert found.way == how
    assert_same(gradients(model, Batching(0), examples), gradients(model, found, examples))


@pytest.mark.parametrize("spec", ["prompt[num_virtual_tokens=3]", "p-tuning[num_virtual_tokens=3]"])
@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2", "gemma2", "bloom", "gptj"])
def test_virtual_tokens_stand_before_each_of_packed_rows(kind, spec):
    model, examples = adapted(kind, spec), rows(9, 5, 12, 2, 7)
    found = batching(model, 0, wanted=True)
    assert found.way in ("rows", "blocks")
    assert_same(gradients(model, Batching(0), examples), gradients(model, found, examples))


@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2", "gemma2", "qwen2", "gptj"])
def test_pairs_stand_before_each_of_packed_rows(kind):
    model, examples = adapted(kind, "prefix[num_virtual_tokens=3]"), rows(9, 5, 12, 2, 7)
    found = batching(model, 0, wanted=True)
    assert found.way in ("rows", "blocks")
    assert_same(gradients(model, Batching(0), examples), gradients(model, found, examples))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(2, 14), min_size=1, max_size=6), st.sampled_from(["llama", "gemma2", "bloom"]))
def test_any_lengths_are_kept_apart(lengths, kind):
    model, examples = _ADAPTED[kind], rows(*lengths)
    how = Batching(0, "blocks" if kind == "bloom" else "rows", packing.takes_positions(model))
    assert_same(gradients(model, Batching(0), examples), gradients(model, how, examples))


_ADAPTED = {kind: adapted(kind) for kind in ("llama", "gemma2", "bloom")}


def test_the_attention_is_the_models_own_again_afterwards(llama):
    own = llama.config._attn_implementation
    within = packing.apart(llama, "rows", (2, 1))
    with pytest.raises(IndexError), within:
        llama.model.layers[len(llama.config._attn_implementation)]
    assert llama.config._attn_implementation == own
    assert llmad.packed_rows() is None


def test_gradient_checkpointing_recomputes_packed_rows(llama):
    llmad.attach(llama, "lora")
    with torch.no_grad():
        for _, parameter in llmad.parameters(llama):
            parameter.add_(0.1)
    llama.train()
    how, examples = Batching(0, "rows"), rows(6, 9, 4)
    plain = gradients(llama, how, examples)
    enable = getattr(llama, "activation_checkpointing_enable", None) or llama.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    assert_same(plain, gradients(llama, how, examples))


@pytest.mark.parametrize("kind", ["gptj", "codegen", "falcon", "gpt_neo", "mpt"])
def test_rows_together_longer_than_the_model_has_positions_for(kind):
    """The models have 128; a mask of GPT-Neo and the biases of MPT end there, and their rows are padded."""
    model, examples = adapted(kind), rows(60, 50, 40)
    how = batching(model, 0, wanted=True)
    assert (how.way is None) == (kind in ("gpt_neo", "mpt"))
    assert_same(gradients(model, Batching(0), examples), gradients(model, how, examples))
