"""Prefix tuning: pairs of keys and values before those of the text; test_virtual.py asks the rest."""

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import llmad
from llmad import ModelError

COUNT = 5
FEW = ["llama", "bloom", "opt-350m", "gptj"]
PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # it still asks
PLAIN = f"prefix[num_virtual_tokens={COUNT},prefix_projection=false]"
PROJECTED = f"prefix[num_virtual_tokens={COUNT},encoder_hidden_size=32]"


@pytest.fixture(params=["llama", "bloom", "opt", "opt-350m", "gptj", "gpt2", "gpt_neox", "phi3", "qwen2"])
def architecture(request):
    return request.param


@pytest.fixture(params=[PLAIN, PROJECTED], ids=["plain", "projected"])
def spec(request):
    return request.param


@pytest.fixture
def prefixed(model, spec, perturb):
    """A tiny model with a prefix that does something."""
    torch.manual_seed(1)
    llmad.attach(model, spec)
    perturb(model, size=0.3)
    return model


def own(model):
    """The parameters by their own names."""
    return {name.partition(":")[2]: parameter.detach() for name, parameter in llmad.parameters(model)}


def logits_of_peft(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@PEFT
def test_peft_computes_the_same_from_the_same_weights(prefixed, architecture, tiny, spec, ids, logits):
    config = {"task_type": "CAUSAL_LM", "num_virtual_tokens": COUNT, "encoder_hidden_size": 32}
    config = peft.PrefixTuningConfig(**config, prefix_projection=spec == PROJECTED)
    theirs = peft.get_peft_model(tiny(architecture), config).eval()
    weights = own(prefixed)
    if spec == PLAIN:
        weights = {"embedding.weight": weights["tokens"]}
    theirs.prompt_encoder["default"].load_state_dict(weights)
    torch.testing.assert_close(logits(prefixed), logits_of_peft(theirs, ids), atol=1e-5, rtol=1e-5)


@PEFT
def test_peft_loads_what_was_saved_and_gives_the_same_logits(prefixed, architecture, tiny, ids, logits, tmp_path):
    theirs = peft.PeftModel.from_pretrained(tiny(architecture), llmad.save(prefixed, tmp_path)).eval()
    torch.testing.assert_close(logits(prefixed), logits_of_peft(theirs, ids), atol=1e-5, rtol=1e-5)


@PEFT
@pytest.mark.parametrize("architecture", ["llama", "opt"])
@pytest.mark.parametrize("projection", [False, True])
def test_what_peft_wrote_loads_as_plain_pairs(architecture, tiny, ids, logits, tmp_path, projection):
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, prefix_projection=projection)
    theirs = peft.get_peft_model(tiny(architecture), config).eval()
    theirs.save_pretrained(tmp_path)
    ours = llmad.load(tiny(architecture), tmp_path)
    assert own(ours).keys() == {"tokens"}
    torch.testing.assert_close(logits(ours), logits_of_peft(theirs, ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", FEW)
def test_it_loads_bit_for_bit(prefixed, architecture, tiny, logits, tmp_path):
    again = llmad.load(tiny(architecture), llmad.save(prefixed, tmp_path))
    assert all(torch.equal(tensor, own(prefixed)[name]) for name, tensor in own(again).items())
    assert torch.equal(logits(again), logits(prefixed))


def step(model, ids):
    model.zero_grad()
    model(ids, labels=ids).loss.backward()
    with torch.no_grad():
        for _, parameter in llmad.parameters(model):
            assert parameter.grad.count_nonzero()
            parameter -= 0.1 * parameter.grad


@pytest.mark.parametrize("architecture", FEW)
def test_training_reaches_every_parameter_and_goes_on_after_loading(prefixed, architecture, tiny, ids, tmp_path):
    base = {name: tensor.clone() for name, tensor in tiny(architecture).state_dict().items()}
    step(prefixed.train(), ids)
    again = llmad.load(tiny(architecture).train(), llmad.save(prefixed, tmp_path), trainable=True)
    step(again, ids)
    step(prefixed, ids)
    assert all(torch.equal(tensor, own(prefixed)[name]) for name, tensor in own(again).items())
    state = prefixed.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.items())
    assert [p for p in prefixed.parameters() if p.grad is not None] == [p for _, p in llmad.parameters(prefixed)]


@pytest.mark.parametrize("architecture", ["llama"])
def test_saving_draws_no_random_number(prefixed, tmp_path):
    before = torch.get_rng_state()
    llmad.save(prefixed, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("architecture", ["llama", "gptj"])
def test_gradient_checkpointing_is_refused_in_training_alone(prefixed, ids):
    switch = (
        "gradient_checkpointing"
        if not hasattr(prefixed, "activation_checkpointing_enable")
        else "activation_checkpointing"
    )
    getattr(prefixed, f"{switch}_enable")()
    prefixed(ids)
    with pytest.raises(ModelError) as caught:
        prefixed.train()(ids, labels=ids)
    assert caught.value.code == "virtual-checkpointing"
    getattr(prefixed, f"{switch}_disable")()
    assert prefixed(ids, labels=ids).loss.isfinite()


@pytest.mark.parametrize("architecture", ["phi3"])
def test_a_window_that_cannot_hold_the_pairs_is_refused(prefixed, ids):
    prefixed.config.sliding_window = COUNT
    with pytest.raises(ModelError) as caught:
        prefixed(ids)
    assert caught.value.code == "virtual-cache"


@pytest.mark.parametrize("architecture", ["llama"])
@pytest.mark.parametrize("spec", [PROJECTED])
def test_one_value_that_the_network_does_not_make_is_refused(prefixed, tiny, tmp_path):
    file = llmad.save(prefixed, tmp_path) / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["prompt_embeddings"][0, 0] += 1
    save_file(tensors, file)
    with pytest.raises(ModelError) as caught:
        llmad.load(tiny("llama"), tmp_path)
    assert caught.value.code == "extra-tensor"


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_sizes_follow_the_heads_of_the_keys(prefixed, spec):
    width = 2 * 8  # heads of k and v, and their size
    if spec == PLAIN:
        assert own(prefixed)["tokens"].shape == (COUNT, 3 * 2 * width)
    else:
        assert own(prefixed)["embedding.weight"].shape == (COUNT, width)
        assert own(prefixed)["transform.0.weight"].shape == (32, width)
        assert own(prefixed)["transform.2.weight"].shape == (3 * 2 * width, 32)


def test_the_rate_of_the_network_falls_with_the_width_and_that_of_the_pairs_does_not():
    plain, projected = llmad.parse_spec(PLAIN), llmad.parse_spec(PROJECTED)
    assert plain.rate(4096) == plain.rate(128) == 5e-2
    assert projected.rate(128) == 32 * projected.rate(4096)
