"""Virtual tokens: they are nobody else's affair, whatever is asked of the model, and whoever else is there."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

import llmad
from llmad import ModelError

COUNT = 5
KINDS = ["prompt", "prefix"]  # in the sequence, in the cache
ARCHITECTURES = ["llama", "bloom", "opt", "gptj", "gpt2", "gpt_neox", "phi3", "qwen2"]
FEW = ["llama", "bloom", "opt", "gptj"]
few = pytest.mark.parametrize("architecture", FEW)
STACKS = [("prompt", "prompt"), ("prompt", "prefix"), ("prefix", "prompt"), ("prefix", "prefix")]


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def add(model, perturb, kind, name="default", count=COUNT, seed=11):
    torch.manual_seed(seed)
    llmad.attach(model, f"{kind}[num_virtual_tokens={count}]", name)
    perturb(model, name, size=0.5, seed=seed)
    return model


@pytest.fixture
def adapted(model, kind, perturb):
    """A tiny model with virtual tokens that do something."""
    return add(model, perturb, kind)


@pytest.fixture
def padded(ids):
    """Three rows of different lengths, padded on the left: ids and mask, (3, 7)."""
    lengths = [7, 4, 1]
    rows = torch.cat((ids, ids[:1].flip(1)))
    mask = torch.tensor([[0] * (7 - length) + [1] * length for length in lengths])
    return rows * mask, mask


def generate(model, ids, mask, **options):
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0} | options
    options |= {"no_repeat_ngram_size": 1, "suppress_tokens": [0]}  # tiny models say one word over and over
    return model.generate(ids, attention_mask=mask, **options)


def assert_same(first, second):
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_they_take_effect_and_the_output_is_as_long_as_the_input(adapted, ids, logits):
    with llmad.disabled(adapted):
        plain = logits(adapted)
    assert logits(adapted).shape == plain.shape == (2, 7, 97)
    assert not torch.allclose(logits(adapted), plain, atol=1e-3)


@few
def test_disabled_and_detached_it_is_the_base_bit_for_bit(model, kind, logits, perturb, snapshot):
    known, before = snapshot(model), logits(model)
    add(model, perturb, kind)
    with llmad.disabled(model):
        assert torch.equal(logits(model), before)
    llmad.detach(model)
    assert torch.equal(logits(model), before)
    assert snapshot(model) == known


@few
@torch.no_grad()
def test_a_mask_of_ones_says_nothing(adapted, ids, logits):
    assert_same(adapted(ids, attention_mask=torch.ones_like(ids)).logits, logits(adapted))


@few
@torch.no_grad()
def test_embeddings_may_come_in_the_place_of_ids(adapted, ids, logits):
    embeddings = adapted.get_input_embeddings()(ids)
    assert torch.equal(adapted(inputs_embeds=embeddings).logits, logits(adapted))


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_equals_its_rows(adapted, padded, side):
    ids, mask = padded if side == "left" else (part.flip(1) for part in padded)
    together = adapted(ids, attention_mask=mask).logits
    for row in range(3):
        own = mask[row].bool()
        assert_same(together[row, own], adapted(ids[row : row + 1, own]).logits[0])


@torch.no_grad()
def test_cached_calls_find_the_positions_that_the_whole_call_had(adapted, padded):
    ids, mask = padded
    whole = adapted(ids, attention_mask=mask).logits
    first = adapted(ids[:, :5], attention_mask=mask[:, :5], use_cache=True)
    rest = adapted(ids[:, 5:], attention_mask=mask, past_key_values=first.past_key_values).logits
    assert_same(rest[:2], whole[:2, 5:])  # the third row is padding alone in the first call
    assert_same(rest[2, 1:], whole[2, 6:])


@torch.no_grad()
def test_a_cache_is_filled_once_and_goes_on_without_a_mask(adapted, ids, logits):
    first = adapted(ids[:, :4], use_cache=True)
    assert first.past_key_values.get_seq_length() == COUNT + 4
    rest = adapted(ids[:, 4:], past_key_values=first.past_key_values).logits
    assert first.past_key_values.get_seq_length() == COUNT + 7
    assert_same(rest, logits(adapted)[:, 4:])


@few
@torch.no_grad()
def test_an_empty_cache_that_is_given_is_filled(adapted, ids, logits):
    cache = DynamicCache(config=adapted.config)
    assert_same(adapted(ids, past_key_values=cache).logits, logits(adapted))
    assert cache.get_seq_length() == COUNT + 7


def test_generation_is_the_same_with_and_without_a_cache(adapted, padded):
    assert torch.equal(generate(adapted, *padded), generate(adapted, *padded, use_cache=False))


@few
def test_beam_search_is_the_same_with_and_without_a_cache(adapted, padded):
    options = {"num_beams": 3, "num_return_sequences": 2}
    with_cache = generate(adapted, *padded, **options)
    assert with_cache.shape == (6, 13)
    assert torch.equal(with_cache, generate(adapted, *padded, use_cache=False, **options))


def test_a_padded_batch_generates_what_its_rows_generate(adapted, padded):
    ids, mask = padded
    together = generate(adapted, ids, mask)
    for row in range(3):
        own = mask[row].bool()
        alone = generate(adapted, ids[row : row + 1, own], mask[row : row + 1, own])
        assert torch.equal(together[row, 7:], alone[0, own.sum() :])


@torch.no_grad()
@pytest.mark.parametrize("use_cache", [True, False])
def test_what_is_returned_is_what_the_base_returns(adapted, ids, use_cache):
    adapted.set_attn_implementation("eager")
    options = {"output_hidden_states": True, "output_attentions": True, "use_cache": use_cache}
    with llmad.disabled(adapted):
        wanted = adapted(ids, **options)
    found = adapted(ids, **options)
    assert found.keys() == wanted.keys()
    for key in ("hidden_states", "attentions"):
        assert [part.shape for part in found[key]] == [part.shape for part in wanted[key]]
    assert [type(part) for part in adapted(ids, return_dict=False, **options)] == [
        type(part) for part in wanted.to_tuple()
    ]
    if use_cache:
        mask = torch.ones(2, 8, dtype=torch.long)
        more = adapted(ids[:, :1], attention_mask=mask, past_key_values=found.past_key_values, **options)
        assert [part.shape for part in more.attentions] == [(2, 4, 1, 8)] * 3


@few
@torch.no_grad()
def test_a_tuple_holds_the_same(adapted, ids):
    named = adapted(ids, output_hidden_states=True, use_cache=False)
    values = adapted(ids, output_hidden_states=True, use_cache=False, return_dict=False)
    assert torch.equal(values[0], named.logits)
    assert all(map(torch.equal, values[1], named.hidden_states))


@pytest.fixture(params=STACKS, ids="-".join)
def two(request, model, perturb):
    """A tiny model with two adapters of virtual tokens, of different sizes."""
    for seed, (kind, name) in enumerate(zip(request.param, "ab", strict=True)):
        add(model, perturb, kind, name, count=COUNT - seed, seed=seed)
    return model


@few
@torch.no_grad()
def test_a_stack_attends_to_both(two, ids, padded, logits):
    out = logits(two)
    for name in "ab":
        llmad.activate(two, name)
        assert not torch.allclose(logits(two), out, atol=1e-4)
    llmad.activate(two, "b", "a")
    ids, mask = padded
    together = two(ids, attention_mask=mask).logits
    for row in range(3):
        own = mask[row].bool()
        assert_same(together[row, own], two(ids[row : row + 1, own]).logits[0])
        assert_same(together[row, own], two(ids[row : row + 1, own], attention_mask=mask[row : row + 1, own]).logits[0])
    assert torch.equal(generate(two, *padded), generate(two, *padded, use_cache=False))


@few
@torch.no_grad()
def test_a_stack_returns_what_is_the_texts(two, ids):
    two.set_attn_implementation("eager")
    whole = two(ids, output_hidden_states=True, output_attentions=True)
    assert [states.shape[:2] for states in whole.hidden_states] == [(2, 7)] * 4
    assert [weights.shape for weights in whole.attentions] == [(2, 4, 7, 7)] * 3
    assert all((weights.triu(1) == 0).all() for weights in whole.attentions)
    assert all((weights.diagonal(dim1=-2, dim2=-1) > 0).all() for weights in whole.attentions)


@torch.no_grad()
@pytest.mark.parametrize("masked", [True, False])
def test_each_row_of_a_batch_equals_what_it_gives_alone(two, padded, masked):
    ids, mask = padded if masked else (padded[0].flip(0)[:1].expand(3, -1) + 3, None)
    with llmad.per_row(two, ["a", None, "b"]):
        together = two(ids, attention_mask=mask).logits
    for row, name in enumerate(("a", None, "b")):
        llmad.activate(two, *([name] if name else []))
        own = slice(None) if mask is None else mask[row].bool()
        assert_same(together[row, own], two(ids[row : row + 1, own]).logits[0])


@few
@torch.no_grad()
def test_rows_may_have_stacks(two, padded):
    ids, mask = padded
    with llmad.per_row(two, [["b", "a"], "b", ["a", "b"]]):
        together = two(ids, attention_mask=mask).logits
        generated = generate(two, ids, mask)
    for row, names in enumerate((["b", "a"], ["b"], ["a", "b"])):
        llmad.activate(two, *names)
        own = mask[row].bool()
        assert_same(together[row, own], two(ids[row : row + 1, own]).logits[0])
        assert torch.equal(generated[row, 7:], generate(two, ids[row : row + 1, own], None)[0, own.sum() :])


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
@pytest.mark.parametrize(("beams", "use_cache"), [(1, True), (1, False), (3, True)])
def test_each_row_generates_what_it_generates_alone(two, padded, beams, use_cache):
    ids, mask = padded
    with llmad.per_row(two, ["a", None, "b"]):
        together = generate(two, ids, mask, num_beams=beams, use_cache=use_cache)
    for row, name in enumerate(("a", None, "b")):
        llmad.activate(two, *([name] if name else []))
        own = mask[row].bool()
        alone = generate(two, ids[row : row + 1, own], mask[row : row + 1, own], num_beams=beams)
        assert torch.equal(together[row, 7:], alone[0, own.sum() :])


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_it_composes_with_an_adapter_inside(adapted, ids, perturb):
    llmad.attach(adapted, "lora", "inside")
    perturb(adapted, "inside")
    mask = torch.ones_like(ids)
    assert torch.equal(generate(adapted, ids, mask), generate(adapted, ids, mask, use_cache=False))


def refused(code, call, *args, **options):
    with pytest.raises(ModelError) as caught:
        call(*args, **options)
    assert caught.value.code in code
    assert caught.value.hint


@pytest.mark.parametrize("architecture", ["llama"])
class TestRefused:
    def test_a_mask_of_four_dimensions(self, adapted, ids):
        refused("virtual-mask", adapted, ids, attention_mask=torch.ones(2, 1, 7, 7, dtype=torch.bool))

    def test_generating_with_a_static_cache(self, adapted, ids):
        refused(
            "virtual-mask virtual-cache", generate, adapted, ids, torch.ones_like(ids), cache_implementation="static"
        )

    @pytest.mark.parametrize("masked", [True, False])
    def test_a_static_cache(self, adapted, ids, masked):
        mask = torch.ones_like(ids) if masked else None
        cache = StaticCache(config=adapted.config, max_cache_len=8)
        refused("virtual-cache", adapted, ids, attention_mask=mask, past_key_values=cache)

    def test_a_cache_from_a_call_without_the_adapter(self, adapted, ids):
        cache = DynamicCache(config=adapted.config)
        with llmad.disabled(adapted):
            adapted(ids, past_key_values=cache)
        refused("virtual-cache", adapted, ids, past_key_values=cache, attention_mask=torch.ones(2, 14))

    def test_rows_that_go_on_from_a_cache_of_unknown_origin_without_a_mask(self, adapted, ids):
        with llmad.disabled(adapted):
            cache = adapted(ids, use_cache=True).past_key_values
        with llmad.per_row(adapted, ["default", None]):
            refused("virtual-mask", adapted, ids[:, :1], past_key_values=cache)

    def test_several_texts_in_one_row(self, adapted, ids):
        refused("virtual-packed", adapted, ids, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2]]))


SPECS = ["prompt", "prefix", "prefix[prefix_projection=false]", "p-tuning", "p-tuning[encoder=lstm]"]


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
@pytest.mark.parametrize("spec", SPECS)
def test_virtual_tokens_in_float32_train_on_a_bfloat16_base(model, ids, spec):
    llmad.attach(model.to(torch.bfloat16), spec).train()
    model(ids, labels=ids).loss.backward()
    for _, parameter in llmad.parameters(model):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    assert model(ids).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
@pytest.mark.parametrize("spec", SPECS)
def test_they_train_under_autocast(model, ids, spec):
    llmad.attach(model, spec).train()
    with torch.autocast("cpu", torch.bfloat16):
        model(ids, labels=ids).loss.backward()
    assert all(parameter.grad.count_nonzero() for _, parameter in llmad.parameters(model))


@pytest.mark.parametrize("architecture", ["phi3"])
def test_they_slide_out_of_a_window_with_and_without_a_cache(adapted, padded):
    with llmad.disabled(adapted):
        plain = generate(adapted, *padded)
    adapted.config.sliding_window = 9
    narrow = generate(adapted, *padded)
    assert torch.equal(narrow, generate(adapted, *padded, use_cache=False))
    assert not torch.equal(narrow, plain)


class Stack(torch.nn.Module):
    """A stack of a stranger's own, which is no model of transformers."""

    def __init__(self, own):
        super().__init__()
        self.embed_tokens, self.layers = own.embed_tokens, own.layers

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None, past_key_values=None):
        raise NotImplementedError


def test_a_stack_that_does_not_say_where_its_embedding_is_is_refused(llama, kind):
    llama.model = Stack(llama.model)
    with pytest.raises(ModelError, match="Stack does not say where its token embedding is"):
        llmad.attach(llama, kind)
