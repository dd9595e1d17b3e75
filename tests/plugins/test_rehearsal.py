"""Rehearsal: on every kind of architecture virtual tokens are right, or refused before anything is attached."""

import pytest
import torch
from tests import zoo
from transformers import DynamicCache

import llmad
from llmad import ModelError

COUNT = 2  # the tiny models have windows of four
SPECS = {
    "prompt": f"prompt[num_virtual_tokens={COUNT}]",
    "p-tuning": f"p-tuning[num_virtual_tokens={COUNT}]",
    "prefix": f"prefix[num_virtual_tokens={COUNT},prefix_projection=false]",
}
# multi-query, latent, hybrid, sizes that differ by layer, windows, shared layers, distances, offsets, half-traced
CACHED = [
    "falcon", "gpt_bigcode", "deepseek_v3", "qwen3_next", "falcon_h1", "mimo_v2_flash", "mistral", "gemma3n_text",
    "mpt", "camembert", "jetmoe", "bamba",
]  # fmt: skip
SEQUENCE = ["mamba", "rwkv", "jamba", "mpt", "mistral", "camembert", "recurrent_gemma"]
CELLS = [(kind, "prefix") for kind in CACHED] + [(kind, "prompt") for kind in SEQUENCE] + [("mamba", "p-tuning")]
REFUSED = {
    ("gemma3n_text", "prompt"): "looks tokens up by their ids in embed_tokens_per_layer, too",
    ("gemma4_text", "prompt"): "does not run with embeddings before the text: It seems like",
    ("gemma3", "prompt"): "gets finished masks from Gemma3ForConditionalGeneration",
    ("gemma3", "prefix"): "gets finished masks from Gemma3ForConditionalGeneration",
    ("fuyu", "prefix"): "gets positions from FuyuForCausalLM",
    ("blt", "prompt"): "is one of several stacks that share a cache",
    ("cpmant", "prompt"): "takes ids alone and no embeddings",
    ("cpmant", "prefix"): "takes no mask",
    ("mamba", "prefix"): "keeps no cache of keys and values",
    ("musicgen", "prompt"): "has several tables of embeddings",
    ("deepseek_v32", "prefix"): "a DynamicIndexedLayer has no room for key/value pairs",
    ("lfm3", "prefix"): "keeps states and a sliding window",
    ("prophetnet", "prompt"): "does not run with embeddings before the text",
}


def build(kind, method, perturb):
    model = zoo.build(kind)
    llmad.attach(model, SPECS[method])
    perturb(model, size=0.5)
    return model


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "method"), CELLS)
def test_padding_on_the_left_changes_nothing(kind, method, ids, perturb):
    model = build(kind, method, perturb)
    if kind in ("rwkv", "recurrent_gemma"):
        pytest.skip("the base does not hide padding from its states")
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    padded = ids * mask + (1 - mask) * (model.config.pad_token_id or 0)
    found = model(input_ids=padded, attention_mask=mask).logits
    close(found[0, 3:], model(input_ids=ids[:1, 3:]).logits[0])
    close(found[1], model(input_ids=ids[1:]).logits[0])


@pytest.mark.parametrize(("kind", "method"), CELLS)
def test_text_generated_with_and_without_the_cache_is_the_same(kind, method, ids, perturb):
    model = build(kind, method, perturb)
    if kind == "rwkv":
        pytest.skip("nor does the base write the same")
    how = {"do_sample": False, "min_new_tokens": 4, "max_new_tokens": 4, "pad_token_id": 0}
    how |= {"attention_mask": torch.ones_like(ids)}
    assert torch.equal(model.generate(ids, **how), model.generate(ids, use_cache=False, **how))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["falcon", "deepseek_v3", "mimo_v2_flash", "qwen3_next", "gemma4_text"])
def test_pairs_are_those_of_a_cache_that_was_filled_by_hand(kind, ids, logits, perturb):
    model = build(kind, "prefix", perturb)
    ((_, tokens),) = llmad.parameters(model)
    (module,) = (part for part in model.modules() if hasattr(part, "pairs"))
    cache, rest = DynamicCache(config=model.config), tokens
    for pairs in module.pairs:
        keys, rest = rest.tensor_split([pairs.heads * pairs.key], dim=1)
        values, rest = rest.tensor_split([pairs.heads * pairs.value], dim=1)
        both = (part.view(COUNT, pairs.heads, -1).transpose(0, 1).expand(2, -1, -1, -1) for part in (keys, values))
        cache.update(*both, pairs.layer)
    assert rest.shape[1] == 0
    found = logits(model)
    with llmad.disabled(model):
        close(found, model(input_ids=ids, past_key_values=cache).logits)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mamba", "jamba", "rwkv", "mpt"])
def test_a_prompt_is_the_embeddings_before_those_of_the_text(kind, ids, logits, perturb):
    model = build(kind, "prompt", perturb)
    ((_, tokens),) = llmad.parameters(model)
    whole = torch.cat((tokens.expand(2, -1, -1), model.get_input_embeddings()(ids)), dim=1)
    found = logits(model)
    with llmad.disabled(model):
        close(found, model(inputs_embeds=whole).logits[:, COUNT:])


@pytest.mark.parametrize(("kind", "method"), REFUSED, ids=str)
def test_what_an_architecture_has_no_room_for_is_refused_before_anything_is_attached(kind, method):
    model = zoo.build(kind)
    classes = [type(part) for part in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(ModelError, match=REFUSED[kind, method]) as caught:
        llmad.attach(model, SPECS[method])
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert [type(part) for part in model.modules()] == classes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


def test_a_window_that_cannot_hold_the_pairs_is_refused():
    with pytest.raises(ModelError, match="sees 4 tokens, which leaves 5 pairs no room"):
        llmad.attach(zoo.build("mistral"), "prefix[num_virtual_tokens=5]")


def test_a_rehearsal_draws_no_random_number():
    model = zoo.build("llama")
    torch.manual_seed(3)
    llmad.attach(model, "prefix[num_virtual_tokens=2,prefix_projection=false]")
    ((_, tokens),) = llmad.parameters(model)
    torch.manual_seed(3)
    assert torch.equal(tokens, torch.empty_like(tokens).normal_(std=0.02))
