"""What a step takes, as it is counted without values, beside what autograd keeps of the real one."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

import llmad
from llmad import recompute
from llmad.batching import batching
from llmad.data import Example
from llmad.loss import token_losses
from llmad.usage import Counting, NotCountedError, extrapolated, measured, rehearsed, usage

SIZES = {"num_attention_heads": 4, "vocab_size": 97}
EXPERTS = {**SIZES, "num_hidden_layers": 1, "intermediate_size": 48, "num_key_value_heads": 2, "num_local_experts": 2}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, **SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=97)),
    "bloom": lambda: BloomForCausalLM(BloomConfig(hidden_size=32, n_head=4, n_layer=2, vocab_size=97)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(hidden_size=32, **EXPERTS)),
}
SPECS = ("lora[sites=attn.*+mlp.*,dropout=0.1]", "series", "ia3", "prompt", "prefix")
ROWS = [Example(tuple(range(5, 5 + n)), tuple(place > n // 2 for place in range(n))) for n in (40, 37, 50, 21)]


def made(name, spec="lora", dtype=torch.float32):
    torch.manual_seed(0)
    return llmad.attach(MODELS[name]().to(dtype), spec)


def saved(model, how, rows):
    """Bytes of the storages that autograd saves in a real forward pass, parameters left out."""
    known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    batch = how.batch(rows)
    with how.within(model.train(), batch), saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = token_losses(model, batch.inputs, batch.labels).sum()
    assert loss.isfinite()
    return sum(storage.nbytes() for place, storage in kept.items() if place not in known)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
def test_what_is_kept_is_known_without_values(name, spec, dtype):
    model = made(name, spec, dtype)
    for packing in (True, False):
        how = batching(model, 0, packing)
        found = rehearsed(model, how, ROWS)
        assert found.kept == pytest.approx(saved(model, how, ROWS), rel=0.02)


@pytest.mark.parametrize("spec", ["lora", "prompt"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("again", [False, True])
def test_a_rehearsal_tells_what_the_real_step_takes(name, spec, again):
    model = made(name, spec)
    if again:
        recompute.enable(model)
    how = batching(model, 0, True)
    real, without = measured(model, how, ROWS), rehearsed(model, how, ROWS)
    for what in ("kept", "head", "peak"):
        assert getattr(without, what) == pytest.approx(getattr(real, what), rel=0.01)


def test_computing_again_keeps_less():
    model = made("llama")
    how = batching(model, 0, True)
    before = rehearsed(model, how, ROWS)
    recompute.enable(model)
    after = rehearsed(model, how, ROWS)
    assert after.kept < before.kept / 2
    assert after.kept < after.peak < before.peak


def test_a_rehearsal_leaves_model_and_dice_alone():
    model = made("llama", "lora[dropout=0.5]").eval()
    how, state = batching(model, 0, True), torch.get_rng_state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    noted = [set(vars(part)) for part in model.modules()]
    rehearsed(model, how, ROWS)
    measured(model, how, ROWS)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(part.training for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert noted == [set(vars(part)) for part in model.modules()]


def test_rows_alike_are_extrapolated_exactly():
    model = made("llama")
    how, rows = batching(model, 0, True), [ROWS[0]] * 4
    assert extrapolated(model, how, rows).kept == pytest.approx(measured(model, how, rows).kept, rel=0.02)


def test_what_asks_for_values_is_extrapolated(monkeypatch):
    model = made("mixtral")
    how = batching(model, 0, True)
    monkeypatch.setattr("llmad.usage._QUICK", 0)
    assert usage(model, how, ROWS).way in ("rehearsed", "extrapolated")
    monkeypatch.setattr("llmad.usage.rehearsed", fail)
    assert usage(model, how, ROWS).way == "extrapolated"
    monkeypatch.setattr("llmad.usage.rehearsed", refuse)
    with pytest.raises(llmad.ModelError):
        usage(model, how, ROWS)


def fail(*_):
    raise NotCountedError


def refuse(*_):
    raise llmad.ModelError("test", "no")


def test_small_models_are_measured():
    model = made("llama")
    assert usage(model, batching(model, 0, True), ROWS).way == "measured"


def test_small_blocks_are_told_from_those_that_are_given_back(monkeypatch):
    model = made("llama")
    how = batching(model, 0, True)
    every = measured(model, how, ROWS)
    assert (every.small_kept, every.small_peak >= every.peak) == (every.kept, True)
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "16384")
    some = measured(model, how, ROWS)
    assert (some.kept, some.peak) == (every.kept, every.peak)
    assert 0 < some.small_kept < some.kept
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "0")
    assert measured(model, how, ROWS).small_peak == 0


def test_rows_alike_have_small_blocks_in_a_straight_line_too():
    model = made("llama")
    how, rows = batching(model, 0, True), [ROWS[0]] * 4
    assert extrapolated(model, how, rows).small_kept == pytest.approx(measured(model, how, rows).small_kept, rel=0.02)


@torch.library.custom_op("llmad_tests::first_of_many", mutates_args=())
def first_of_many(x: torch.Tensor) -> torch.Tensor:
    """An operation written in Python, as those of quantizers are, which makes a hundred times what it returns."""
    return x.repeat(100).sum() + x


def test_what_an_operation_makes_for_itself_counts():
    x, model = torch.zeros(1000), torch.nn.Linear(1, 1)
    with Counting(model) as counting:
        made = first_of_many(x)
    assert torch.equal(made, x)
    assert (counting.every.now, counting.every.peak >= 400_000) == (4000, True)
