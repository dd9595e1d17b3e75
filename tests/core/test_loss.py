"""The loss of the learnt tokens: on every kind of head, with adapters anywhere, beside the model's own logits."""

import gc
import weakref

import accelerate
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers import LlamaForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

import llmad
from llmad import chunked, loss
from llmad.data import IGNORED
from llmad.errors import DataError
from llmad.head import Behind
from llmad.loss import answer_loss, plain_losses
from tests import zoo

# a tied head, a bias, a limit, a scale, a narrow head, a mixture, a state that is passed on
KINDS = (
    "bloom cohere cohere2 falcon falcon_mamba gemma2 gpt2 gpt_neox gptj granite inkling2_text llama mamba mixtral"
    " nanochat opt phi phi3 qwen2 qwen3 recurrent_gemma xlm"
).split()
SCALED = {"granite": "logits_scaling", "granite_swa": "logits_scaling", "hyperclovax": "logits_scaling"}


@pytest.fixture
def llama(llama):
    return llama.requires_grad_(False)


@pytest.fixture
def labels(ids):
    labels = ids.clone()
    labels[:, 0] = labels[0, 1:3] = labels[1, 5:] = IGNORED
    return labels


@pytest.fixture
def seen(monkeypatch):
    """What goes through heads for a loss, as shapes: the chunks of linear heads."""
    shapes = []
    logits = chunked.Linear.logits

    def spy(self, hidden, out):
        shapes.append(tuple(hidden.shape))
        logits(self, hidden, out)

    monkeypatch.setattr(chunked.Linear, "logits", spy)
    return shapes


def plain_loss(model, inputs, labels):
    return plain_losses(model, inputs, labels).sum()


def oracle(model, inputs, labels):
    """All logits, and then the labelled ones."""
    logits = model(**inputs, use_cache=False).logits[:, : labels.shape[1] - 1]
    learnt = labels[:, 1:] != IGNORED
    return F.cross_entropy(logits[learnt].float(), labels[:, 1:][learnt], reduction="sum")


def with_grads(found, model):
    parameters = dict(llmad.parameters(model))
    grads = torch.autograd.grad(found, list(parameters.values()))
    return found.detach(), dict(zip(parameters, grads, strict=True))


def check(model, inputs, labels, wanted=oracle):
    """Twice, since the first call with a model reads what is behind its head."""
    own, theirs = with_grads(wanted(model, inputs, labels), model)
    assert any(grad.abs().max() > 0 for grad in theirs.values())
    for _ in range(2):
        found, grads = with_grads(answer_loss(model, inputs, labels), model)
        assert found.dtype == torch.float32
        assert found.shape == ()
        torch.testing.assert_close(found, own, rtol=1e-6, atol=0)
        for name, grad in grads.items():
            assert (grad - theirs[name]).norm() <= 1e-5 * theirs[name].norm() + 1e-9, name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_head(kind, ids, labels, perturb, seen):
    model = llmad.attach(zoo.build(kind), "series")
    perturb(model)
    check(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels)
    assert {count for count, _ in seen} == {int((labels[:, 1:] != IGNORED).sum())}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in zoo.TYPES if kind not in zoo.UNBUILT])
def test_every_type_of_model(kind, ids, labels):
    model = zoo.build(kind).requires_grad_(False).train(kind == "reformer")
    own = []
    for way in (oracle, answer_loss, answer_loss):
        torch.manual_seed(0)
        own.append(way(model, {"input_ids": ids}, labels))
    torch.testing.assert_close(own[1:], own[:1] * 2, rtol=1e-6, atol=0)


def test_narrow_heads(model, ids, labels, perturb):
    perturb(llmad.attach(model, "lora"))
    check(model, {"input_ids": ids}, labels)


@pytest.mark.parametrize("scale", [8.0, 0.3])
@pytest.mark.parametrize("kind", SCALED)
def test_scaled_logits(kind, scale, ids, labels, perturb, seen):
    model = zoo.build(kind)
    setattr(model.config, SCALED[kind], scale)
    perturb(llmad.attach(model, "lora"))
    check(model, {"input_ids": ids}, labels)
    assert seen


def test_a_limit_that_bends(ids, labels, perturb, seen):
    model = zoo.build("gemma2")
    model.config.final_logit_softcapping = 0.5
    perturb(llmad.attach(model, "lora"))
    check(model, {"input_ids": ids}, labels)
    assert seen


def test_a_head_cut_to_the_vocabulary(ids, labels, perturb, seen):
    model = zoo.build("inkling2_text")
    model.config.unpadded_vocab_size = 90
    perturb(llmad.attach(model, "lora"))
    check(model, {"input_ids": ids.clamp(max=89)}, labels.clamp(max=89))
    assert seen


def test_the_models_own_loss(llama, ids, labels):
    mean = llama(input_ids=ids, labels=labels).loss
    learnt = (labels[:, 1:] != IGNORED).sum()
    torch.testing.assert_close(answer_loss(llama, {"input_ids": ids}, labels) / learnt, mean, rtol=1e-6, atol=0)


@pytest.fixture(scope="module")
def adapted():
    return llmad.attach(zoo.build("llama"), "series")


@given(data=st.data(), rows=st.integers(1, 3), length=st.integers(2, 9), chunk=st.integers(1, 12))
def test_any_mask_and_any_chunk(adapted, data, rows, length, chunk):
    ids = torch.randint(3, 97, (rows, length), generator=torch.Generator().manual_seed(length))
    size = rows * (length - 1)
    learnt = data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    labels = ids.clone()
    labels[:, 0] = IGNORED
    labels[:, 1:][~torch.tensor(learnt).view(rows, length - 1)] = IGNORED
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(chunked.CHUNK, "cpu", 4 * 97 * chunk)
        check(adapted, {"input_ids": ids}, labels)


def test_packed_rows(llama, ids, labels, perturb):
    perturb(llmad.attach(llama, "lora"))
    apart = answer_loss(llama, {"input_ids": ids}, labels)
    positions = torch.arange(ids.shape[1]).repeat(len(ids))[None]
    packed = {"input_ids": ids.view(1, -1), "position_ids": positions}
    check(llama, packed, labels.view(1, -1))
    torch.testing.assert_close(answer_loss(llama, packed, labels.view(1, -1)), apart)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_as_near_as_the_plain_way(dtype, llama, ids, labels):
    exact = oracle(llama.to(dtype).float(), {"input_ids": ids}, labels)
    llama.to(dtype)
    found, plain = (way(llama, {"input_ids": ids}, labels) for way in (answer_loss, plain_loss))
    assert found.dtype == plain.dtype == torch.float32
    assert abs(found - exact) <= max(2 * abs(plain - exact), 2e-3 * exact)


@pytest.mark.parametrize("spec", ["lora[sites=head]", "series[sites=head]", "lora[sites=head+attn.q]"])
def test_an_adapter_at_the_head(spec, llama, ids, labels, perturb, seen):
    inputs = {"input_ids": ids}
    answer_loss(llama, inputs, labels)
    assert len(seen) == 1
    perturb(llmad.attach(llama, spec))
    check(llama, inputs, labels)
    assert len(seen) == 1  # not by the fast way
    with llmad.disabled(llama):
        torch.testing.assert_close(answer_loss(llama, inputs, labels), oracle(llama, inputs, labels))
    assert len(seen) == 2
    llmad.detach(llama)
    torch.testing.assert_close(answer_loss(llama, inputs, labels), oracle(llama, inputs, labels))
    assert len(seen) == 3


@pytest.mark.parametrize("spec", ["prompt", "prefix", "p-tuning", "ia3"])
@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2"])
def test_adapters_elsewhere(kind, spec, tiny, ids, labels, perturb, seen):
    model = llmad.attach(tiny(kind), spec)
    perturb(model)
    check(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels)
    assert seen


def test_adapters_by_row(llama, ids, labels, perturb):
    llmad.attach(llama, "lora", "a")
    llmad.attach(llama, "series", "b")
    perturb(llama, "a"), perturb(llama, "b")
    with llmad.per_row(llama, ["a", "b"]):
        found, plain = (way(llama, {"input_ids": ids}, labels) for way in (answer_loss, oracle))
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=0)


def test_gradient_checkpointing(llama, ids, labels, perturb, seen):
    perturb(llmad.attach(llama, "lora"))
    enable = getattr(llama, "activation_checkpointing_enable", None) or llama.gradient_checkpointing_enable
    enable()
    check(llama.train(), {"input_ids": ids}, labels)
    assert seen


def test_a_head_with_accelerates_hook(llama, ids, labels, perturb, seen):
    perturb(llmad.attach(llama, "lora"))
    add_hook_to_module(llama.lm_head, AlignDevicesHook("cpu", io_same_device=True))
    forward = llama.lm_head.forward
    check(llama, {"input_ids": ids}, labels)
    assert llama.lm_head.forward is forward
    assert seen


def test_an_offloaded_head(llama, ids, labels, perturb, seen):
    perturb(llmad.attach(llama, "lora"))
    wanted = oracle(llama, {"input_ids": ids}, labels)
    accelerate.cpu_offload(llama, torch.device("cpu"))
    torch.testing.assert_close(answer_loss(llama, {"input_ids": ids}, labels), wanted)
    assert not seen


class Halved(nn.Linear):
    """A head of a kind of its own."""

    def forward(self, hidden):
        return super().forward(hidden / 2)


class Whole(nn.Module):
    """A model around a head, with code of its own behind that."""

    def __init__(self, behind):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 8).requires_grad_(False)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 11).requires_grad_(False)
        self.adapter = nn.Parameter(torch.randn(8))
        self.behind = behind

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, use_cache=None):
        hidden = self.drop(self.embed(input_ids) + self.adapter)
        return CausalLMOutput(logits=self.behind(self.head, hidden))


def test_a_head_of_another_kind(llama, ids, labels, perturb, seen, monkeypatch):
    head = llama.lm_head
    llama.lm_head = Halved(head.in_features, head.out_features, bias=False)
    llama.lm_head.weight = head.weight
    perturb(llmad.attach(llama, "lora"))
    monkeypatch.setitem(chunked.CHUNK, "cpu", 4 * 97 * 2)
    check(llama, {"input_ids": ids}, labels)
    assert not seen


def test_a_quantised_head(llama, ids, labels, perturb):
    bnb = pytest.importorskip("bitsandbytes")
    four = bnb.nn.Linear4bit(
        llama.lm_head.in_features, llama.lm_head.out_features, bias=False, compute_dtype=torch.float32
    )
    four.weight = bnb.nn.Params4bit(llama.lm_head.weight.detach(), requires_grad=False, quant_type="nf4")
    llama.lm_head = four.to("cpu")
    perturb(llmad.attach(llama, "lora"))
    check(llama, {"input_ids": ids}, labels)


def by_position(head, hidden):
    return head(hidden) + torch.arange(hidden.shape[1])[None, :, None] * hidden[..., :1].detach()


CODE = {
    "a softmax": lambda head, hidden: head(hidden).softmax(-1),
    "a square": lambda head, hidden: head(hidden).square(),
    "a shift": lambda head, hidden: head(hidden) + 1,
    "a bias by position": by_position,
    "a view": lambda head, hidden: head(hidden).view(*hidden.shape[:2], -1),
    "two calls": lambda head, hidden: head(hidden) + head(hidden),
    "flat states": lambda head, hidden: head(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]),
    "the weight alone": lambda head, hidden: F.linear(hidden, head.weight),
    "nothing": lambda head, hidden: head(hidden),
}


@pytest.mark.parametrize("code", CODE)
def test_code_behind_the_head_that_is_not_understood(code, seen):
    model = Whole(CODE[code])
    ids = torch.randint(11, (2, 5))
    wanted, calls = [], []
    model.register_forward_pre_hook(lambda module, args: calls.append(module))
    for way in (plain_loss, answer_loss, answer_loss):  # the same dropout in each
        torch.manual_seed(3)
        wanted.append(way(model, {"input_ids": ids}, ids))
        wanted[-1].backward()
        wanted.append(model.adapter.grad)
        wanted.append(torch.rand(()))
        model.adapter.grad = None
    torch.testing.assert_close(wanted[3:], wanted[:3] * 2)
    assert bool(seen) == (code == "nothing")
    assert len(calls) == 3 + (code != "nothing")  # it is tried once


def test_a_trained_head(llama, ids, labels, seen):
    llama.lm_head.weight.requires_grad_()
    answer_loss(llama, {"input_ids": ids}, labels).backward()
    found = llama.lm_head.weight.grad.clone()
    llama.lm_head.weight.grad = None
    oracle(llama, {"input_ids": ids}, labels).backward()
    torch.testing.assert_close(found, llama.lm_head.weight.grad)
    assert not seen


def test_a_model_that_names_no_head(ids):
    class Bare(PreTrainedModel):
        config_class = PreTrainedConfig

        def __init__(self, config):
            super().__init__(config)
            self.inner = zoo.build("gpt2")

        def get_output_embeddings(self):
            return None

        def forward(self, **inputs):
            return self.inner(**inputs)

    model = Bare(PreTrainedConfig())
    torch.testing.assert_close(answer_loss(model, {"input_ids": ids}, ids), oracle(model, {"input_ids": ids}, ids))


def test_nothing_of_the_model_is_changed(llama, ids, labels, snapshot):
    llmad.attach(llama, "lora")
    before = snapshot(llama)
    answer_loss(llama, {"input_ids": ids}, labels)
    answer_loss(llama, {"input_ids": ids}, labels)
    assert snapshot(llama) == before


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("place", ["before", "behind"])
def test_an_error_leaves_the_head_as_it_was(place, known, llama, ids, labels, snapshot, monkeypatch):
    if known:
        answer_loss(llama, {"input_ids": ids}, labels)
    before = snapshot(llama)
    own = LlamaForCausalLM.forward

    def fails(self, *args, **kwargs):
        if place == "behind":
            own(self, *args, **kwargs)
        raise ZeroDivisionError("of the model")

    monkeypatch.setattr(LlamaForCausalLM, "forward", fails)
    with pytest.raises(ZeroDivisionError, match="of the model"):
        answer_loss(llama, {"input_ids": ids}, labels)
    monkeypatch.undo()
    assert snapshot(llama) == before
    torch.testing.assert_close(
        answer_loss(llama, {"input_ids": ids}, labels), oracle(llama, {"input_ids": ids}, labels)
    )


def test_another_head_is_read_anew(llama, ids, labels, seen):
    answer_loss(llama, {"input_ids": ids}, labels)
    llama.resize_token_embeddings(120, mean_resizing=False)
    llama.requires_grad_(False)
    torch.testing.assert_close(
        answer_loss(llama, {"input_ids": ids}, labels), oracle(llama, {"input_ids": ids}, labels)
    )
    assert len(seen) == 2


def test_an_adapter_that_lengthens_the_text(tiny, ids, seen):
    model = tiny("llama").requires_grad_(False)
    answer_loss(model, {"input_ids": ids}, ids)
    twice = lambda module, args, out: type(out)(last_hidden_state=torch.cat([out[0]] * 2, 1))  # noqa: E731
    model.model.register_forward_hook(twice)
    found, plain = (way(model, {"input_ids": ids}, ids) for way in (answer_loss, oracle))
    torch.testing.assert_close(found, plain)
    assert len(seen) == 1


def test_no_label_is_an_error(llama, ids):
    labels = torch.full_like(ids, IGNORED)
    labels[:, 0] = ids[:, 0]  # nothing comes before it
    with pytest.raises(DataError, match="none of the 14 tokens is labelled") as caught:
        answer_loss(llama, {"input_ids": ids}, labels)
    assert caught.value.code == "nothing-learnt"


def test_what_is_known_of_a_model_goes_with_it(tiny, ids):
    model = tiny("llama").requires_grad_(False)
    answer_loss(model, {"input_ids": ids}, ids)
    assert loss._known[model][1] == Behind(97, 97)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_without_gradients(llama, ids, labels):
    with torch.no_grad():
        found = answer_loss(llama, {"input_ids": ids}, labels)
    assert not found.requires_grad
    torch.testing.assert_close(found, oracle(llama, {"input_ids": ids}, labels), rtol=1e-6, atol=0)
