"""Prompt tuning: rows of learned embeddings before those of the text; test_virtual.py asks the rest."""

import peft
import pytest
import torch

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


def tokens(model):
    ((_, tokens),) = llmad.parameters(model)
    return tokens


def test_logits_are_those_of_the_embeddings_with_the_tokens_before(prompted, ids, logits):
    table = prompted.get_input_embeddings()
    whole = torch.cat((tokens(prompted).expand(2, -1, -1), table(ids)), dim=1)
    with torch.no_grad(), llmad.disabled(prompted):
        wanted = prompted(inputs_embeds=whole).logits[:, COUNT:]
    torch.testing.assert_close(logits(prompted), wanted, atol=1e-6, rtol=1e-5)


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


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT still asks for it
def test_a_prompt_that_peft_made_with_an_encoder_loads_as_the_embeddings_it_wrote(tiny, ids, logits, tmp_path):
    config = peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=8)
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
