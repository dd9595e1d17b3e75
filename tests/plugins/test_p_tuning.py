"""P-tuning: embeddings that a network makes, before those of the text; test_virtual.py asks the rest."""

import peft
import pytest
import torch

import llmad

COUNT = 5
PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # it still asks


@pytest.fixture(params=["mlp", "lstm"])
def encoder(request):
    return request.param


@pytest.fixture
def prompted(model, encoder, perturb):
    """A tiny model with virtual tokens that do something."""
    torch.manual_seed(1)
    llmad.attach(model, f"p-tuning[num_virtual_tokens={COUNT},encoder={encoder},encoder_hidden_size=24]")
    perturb(model)
    return model


def own(model):
    """The parameters by their own names."""
    return {name.partition(":")[2]: parameter.detach() for name, parameter in llmad.parameters(model)}


def logits_of_peft(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, COUNT:]


@PEFT
def test_peft_computes_the_same_from_the_same_weights(prompted, encoder, architecture, tiny, ids, logits):
    sizes = {"encoder_hidden_size": 24, "token_dim": prompted.get_input_embeddings().embedding_dim}
    config = {"task_type": "CAUSAL_LM", "num_virtual_tokens": COUNT, **sizes}
    config = peft.PromptEncoderConfig(**config, encoder_reparameterization_type=encoder.upper())
    theirs = peft.get_peft_model(tiny(architecture), config).eval()
    theirs.prompt_encoder["default"].load_state_dict(own(prompted))
    torch.testing.assert_close(logits(prompted), logits_of_peft(theirs, ids), atol=1e-5, rtol=1e-5)


@PEFT
def test_peft_loads_what_was_saved_and_gives_the_same_logits(prompted, architecture, tiny, ids, logits, tmp_path):
    theirs = peft.PeftModel.from_pretrained(tiny(architecture), llmad.save(prompted, tmp_path)).eval()
    torch.testing.assert_close(logits(prompted), logits_of_peft(theirs, ids), atol=1e-5, rtol=1e-5)


def test_it_loads_bit_for_bit(prompted, architecture, tiny, logits, tmp_path):
    again = llmad.load(tiny(architecture), llmad.save(prompted, tmp_path))
    assert all(torch.equal(tensor, own(prompted)[name]) for name, tensor in own(again).items())
    assert torch.equal(logits(again), logits(prompted))


def step(model, ids):
    model.zero_grad()
    model(ids, labels=ids).loss.backward()
    with torch.no_grad():
        for _, parameter in llmad.parameters(model):
            assert parameter.grad.count_nonzero()
            parameter -= 0.1 * parameter.grad


def test_training_reaches_every_parameter_and_goes_on_after_loading(prompted, architecture, tiny, ids, tmp_path):
    base = {name: tensor.clone() for name, tensor in tiny(architecture).state_dict().items()}
    step(prompted.train(), ids)
    again = llmad.load(tiny(architecture).train(), llmad.save(prompted, tmp_path), trainable=True)
    step(again, ids)
    step(prompted, ids)
    assert all(torch.equal(tensor, own(prompted)[name]) for name, tensor in own(again).items())
    state = prompted.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.items())
    assert [p for p in prompted.parameters() if p.grad is not None] == [p for _, p in llmad.parameters(prompted)]


@pytest.mark.parametrize("architecture", ["llama"])
def test_saving_draws_no_random_number(prompted, tmp_path):
    before = torch.get_rng_state()
    llmad.save(prompted, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("architecture", ["llama"])
def test_dropout_acts_in_training_and_not_in_what_is_saved(model, ids, logits, tiny, tmp_path):
    torch.manual_seed(1)
    llmad.attach(model, "p-tuning[encoder=lstm,encoder_dropout=0.5,encoder_num_layers=3]").train()
    with torch.no_grad():
        assert not torch.equal(model(ids).logits, model(ids).logits)
    again = llmad.load(tiny("llama"), llmad.save(model, tmp_path))
    assert torch.equal(logits(again), logits(model.eval()))


@pytest.mark.parametrize("architecture", ["llama"])
def test_the_middle_is_as_wide_as_the_model_where_nothing_is_said(model, encoder):
    shapes = {name: tuple(t.shape) for name, t in own(llmad.attach(model, f"p-tuning[encoder={encoder}]")).items()}
    assert shapes["embedding.weight"] == (100, 32)
    assert shapes["mlp_head.0.weight"] == ((32, 32) if encoder == "mlp" else (64, 64))


@pytest.mark.parametrize("architecture", ["llama"])
def test_a_model_in_bfloat16_computes_in_it(prompted, tiny, architecture, logits, tmp_path):
    prompted.to(torch.bfloat16)
    assert logits(prompted).isfinite().all()
    again = llmad.load(tiny(architecture).to(torch.bfloat16), llmad.save(prompted, tmp_path), check_base=False)
    assert torch.equal(again.get_input_embeddings().weight, prompted.get_input_embeddings().weight)
