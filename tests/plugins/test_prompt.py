"""Prompt tuning: the virtual tokens are nobody else's affair, whatever is asked of the model."""

import peft
import pytest
import torch
from transformers import DynamicCache, StaticCache

import llmad
from llmad import ModelError

COUNT = 5


@pytest.fixture
def prompted(model, perturb):
    """A tiny model with a prompt that does something."""
    torch.manual_seed(1)
    llmad.attach(model, f"prompt[num_virtual_tokens={COUNT}]")
    perturb(model)
    return model


@pytest.fixture
def padded(ids):
    """Three rows of different lengths, padded on the left: ids and mask, (3, 7)."""
    lengths = [7, 4, 1]
    rows = torch.cat((ids, ids[:1].flip(1)))
    mask = torch.tensor([[0] * (7 - length) + [1] * length for length in lengths])
    return rows * mask, mask


def tokens(model):
    ((_, tokens),) = llmad.parameters(model)
    return tokens


def generate(model, ids, mask, **options):
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0} | options
    options |= {"no_repeat_ngram_size": 1}  # tiny models say one word over and over
    return model.generate(ids, attention_mask=mask, **options)


def test_logits_are_as_long_as_the_input(prompted, ids):
    assert prompted(ids).logits.shape == (2, 7, 97)


def test_logits_are_those_of_the_embeddings_with_the_tokens_before(prompted, ids, logits):
    table = prompted.get_input_embeddings()
    whole = torch.cat((tokens(prompted).expand(2, -1, -1), table(ids)), dim=1)
    with torch.no_grad(), llmad.disabled(prompted):
        wanted = prompted(inputs_embeds=whole).logits[:, COUNT:]
    torch.testing.assert_close(logits(prompted), wanted, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_embeddings_may_come_in_the_place_of_ids(prompted, ids, logits):
    embeddings = prompted.get_input_embeddings()(ids)
    assert torch.equal(prompted(inputs_embeds=embeddings).logits, logits(prompted))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT still asks for it
def test_peft_loads_what_was_saved_and_gives_the_same_logits(prompted, architecture, tiny, ids, logits, tmp_path):
    theirs = peft.PeftModel.from_pretrained(tiny(architecture), llmad.save(prompted, tmp_path)).eval()
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, COUNT:]
    torch.testing.assert_close(logits(prompted), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT still asks for it
def test_what_peft_wrote_loads_here(tiny, ids, logits, tmp_path):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    theirs = peft.get_peft_model(tiny("llama"), config).eval()
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 3:]
    torch.testing.assert_close(logits(llmad.load(tiny("llama"), tmp_path)), wanted, atol=1e-5, rtol=1e-5)


def test_a_prompt_for_an_encoder_and_a_decoder_is_refused(llama, tmp_path):
    peft.PromptTuningConfig(num_virtual_tokens=3, num_transformer_submodules=2).save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        llmad.load(llama, tmp_path)
    assert caught.value.code == "foreign-adapter"


@torch.no_grad()
def test_a_left_padded_batch_equals_its_rows(prompted, padded):
    ids, mask = padded
    together = prompted(ids, attention_mask=mask).logits
    for row in range(3):
        length = int(mask[row].sum())
        alone = prompted(ids[row : row + 1, -length:]).logits[0]
        torch.testing.assert_close(together[row, -length:], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_right_padded_batch_equals_its_rows(prompted, padded):
    ids, mask = padded[0].flip(1), padded[1].flip(1)
    together = prompted(ids, attention_mask=mask).logits
    for row in range(3):
        length = int(mask[row].sum())
        alone = prompted(ids[row : row + 1, :length]).logits[0]
        torch.testing.assert_close(together[row, :length], alone, atol=1e-5, rtol=1e-5)


def test_generation_is_the_same_with_and_without_a_cache(prompted, padded):
    assert torch.equal(generate(prompted, *padded), generate(prompted, *padded, use_cache=False))


def test_generation_depends_on_the_prompt(prompted, padded):
    with llmad.disabled(prompted):
        plain = generate(prompted, *padded)
    assert not torch.equal(generate(prompted, *padded), plain)


def test_a_left_padded_batch_generates_what_its_rows_generate(prompted, padded):
    ids, mask = padded
    together = generate(prompted, ids, mask)
    for row in range(3):
        length = int(mask[row].sum())
        alone = generate(prompted, ids[row : row + 1, -length:], mask[row : row + 1, -length:])
        assert torch.equal(together[row, 7:], alone[0, length:])


def test_beam_search_is_the_same_with_and_without_a_cache(prompted, padded):
    options = {"num_beams": 3, "num_return_sequences": 2}
    with_cache = generate(prompted, *padded, **options)
    assert with_cache.shape == (6, 13)
    assert torch.equal(with_cache, generate(prompted, *padded, use_cache=False, **options))


@torch.no_grad()
def test_a_cache_is_filled_once(prompted, ids, logits):
    first = prompted(ids[:, :4], use_cache=True)
    assert first.past_key_values.get_seq_length() == COUNT + 4
    mask = torch.ones(2, 7, dtype=torch.long)
    rest = prompted(ids[:, 4:], past_key_values=first.past_key_values, attention_mask=mask).logits
    torch.testing.assert_close(rest, logits(prompted)[:, 4:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_cache_goes_on_without_a_mask(prompted, ids, logits):
    first = prompted(ids[:, :4], use_cache=True)
    rest = prompted(ids[:, 4:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(rest, logits(prompted)[:, 4:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_states_and_attentions_are_those_of_the_text(prompted, ids):
    prompted.set_attn_implementation("eager")
    out = prompted(ids, output_hidden_states=True, output_attentions=True, use_cache=True)
    assert [states.shape[:2] for states in out.hidden_states] == [(2, 7)] * 4
    assert [weights.shape for weights in out.attentions] == [(2, 4, 7, 7)] * 3
    mask = torch.ones(2, 8, dtype=torch.long)
    more = {"output_hidden_states": True, "output_attentions": True, "attention_mask": mask}
    out = prompted(ids[:, :1], past_key_values=out.past_key_values, **more)
    assert [states.shape[:2] for states in out.hidden_states] == [(2, 1)] * 4
    assert [weights.shape for weights in out.attentions] == [(2, 4, 1, 8)] * 3


@torch.no_grad()
def test_a_tuple_may_be_asked_for(prompted, ids, logits):
    assert torch.equal(prompted(ids, return_dict=False)[0], logits(prompted))


def test_the_gradient_reaches_the_tokens_alone(prompted, ids):
    prompted(ids, labels=ids).loss.backward()
    assert [name for name, p in prompted.named_parameters() if p.grad is not None] == [
        name for name, p in prompted.named_parameters() if p is tokens(prompted)
    ]
    assert tokens(prompted).grad.abs().sum(dim=1).all()


def test_the_loss_is_that_of_the_text(prompted, ids, logits):
    wanted = torch.nn.functional.cross_entropy(logits(prompted)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(prompted(ids, labels=ids).loss.detach(), wanted)


@pytest.mark.parametrize("init", ["vocab", "zero", "paper"])
def test_the_start_is_what_init_says(model, init):
    model = llmad.attach(model, f"prompt[init={init},num_virtual_tokens=64]")
    rows = tokens(model)
    if init == "zero":
        assert rows.count_nonzero() == 0
    elif init == "paper":
        assert rows.std().item() == pytest.approx(0.02, rel=0.1)
    else:
        table = model.get_input_embeddings().weight
        assert all((table == row).all(dim=1).any() for row in rows)


def test_two_prompts_compose(llama, ids, perturb):
    for name in ("a", "b"):
        llmad.attach(llama, "prompt[num_virtual_tokens=2]", name)
        perturb(llama, name)
    assert llama(ids).logits.shape == (2, 7, 97)
    mask = torch.ones_like(ids)
    assert torch.equal(generate(llama, ids, mask), generate(llama, ids, mask, use_cache=False))


def test_a_prompt_composes_with_an_adapter_inside(prompted, ids, perturb):
    llmad.attach(prompted, "lora", "inside")
    perturb(prompted, "inside")
    mask = torch.ones_like(ids)
    assert torch.equal(generate(prompted, ids, mask), generate(prompted, ids, mask, use_cache=False))


def test_a_mask_of_four_dimensions_is_refused(prompted, ids):
    with pytest.raises(ModelError) as caught:
        prompted(ids, attention_mask=torch.ones(2, 1, 7, 7, dtype=torch.bool))
    assert caught.value.code == "prompt-mask"


def test_generating_with_a_static_cache_is_refused(llama, ids):
    llmad.attach(llama, "prompt")
    with pytest.raises(ModelError) as caught:
        generate(llama, ids, torch.ones_like(ids), cache_implementation="static")
    assert caught.value.code in ("prompt-mask", "prompt-cache")
    assert "dynamic cache" in caught.value.hint


@pytest.mark.parametrize("masked", [True, False])
def test_a_static_cache_is_refused(llama, ids, masked):
    llmad.attach(llama, "prompt")
    mask = torch.ones_like(ids) if masked else None
    with pytest.raises(ModelError) as caught:
        llama(ids, attention_mask=mask, past_key_values=StaticCache(config=llama.config, max_cache_len=8))
    assert caught.value.code == "prompt-cache"


def test_a_cache_from_a_call_without_the_prompt_is_refused(llama, ids):
    llmad.attach(llama, f"prompt[num_virtual_tokens={COUNT}]")
    cache = DynamicCache(config=llama.config)
    with llmad.disabled(llama):
        llama(ids, past_key_values=cache)
    with pytest.raises(ModelError) as caught:
        llama(ids, past_key_values=cache, attention_mask=torch.ones(2, 14))
    assert caught.value.code == "prompt-cache"
