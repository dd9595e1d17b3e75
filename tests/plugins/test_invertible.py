"""The invertible adapter: its equation, its inverse, and the networks that its two places share."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import llmad
from llmad import ModelError, Site, UsageError


def pair(text, width=8):
    """The layer after the embedding and the one before the head."""
    embed, head = Site("e", "embed", None, 1, width), Site("h", "head", None, width, width, before=True)
    layers = llmad.parse_spec(text).assemble([embed, head])
    return layers[embed], layers[head]


def network(part, function, z):
    """F or G in float64."""
    down, up = ({key: value.double() for key, value in layer.state_dict().items()} for layer in part)
    return function(z @ down["weight"].T + down["bias"]) @ up["weight"].T + up["bias"]


def same(x):
    return x


@pytest.mark.parametrize(("activation", "function"), [("relu", torch.relu), ("gelu", nn.functional.gelu)])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_the_output_is_the_equation(activation, function, factor):
    there, back = pair(f"invertible[init=paper,activation={activation},reduction_factor={factor}]", 12)
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.normal_()
    table = nn.Embedding(9, 12).double()
    tokens = torch.randint(9, (2, 5))
    x1, x2 = table(tokens)[..., :6], table(tokens)[..., 6:]
    y1 = x1 + network(there.first, function, x2)
    y2 = x2 + network(there.second, function, y1)
    coupled = torch.cat((y1, y2), dim=-1)
    torch.testing.assert_close(there(table, tokens), coupled, atol=1e-12, rtol=1e-9)
    x2 = y2 - network(there.second, function, y1)
    x1 = y1 - network(there.first, function, x2)
    torch.testing.assert_close(back(same, coupled), torch.cat((x1, x2), dim=-1), atol=1e-12, rtol=1e-9)
    assert there.first[0].weight.shape == (6 // factor, 6)


@given(
    half=st.integers(1, 6), seed=st.integers(0, 999), scale=st.floats(0.01, 10), name=st.sampled_from(["relu", "silu"])
)
def test_the_way_back_is_the_inverse_of_the_way_there(half, seed, scale, name):
    torch.manual_seed(seed)
    there, back = pair(f"invertible[reduction_factor=1,activation={name}]", 2 * half)
    with torch.no_grad():
        for parameter in there.double().parameters():
            parameter.normal_()
        x = scale * torch.randn(2, 3, 2 * half, dtype=torch.float64)
        torch.testing.assert_close(back(same, there(same, x)), x, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(there(same, back(same, x)), x, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("init", ["zero", "paper"])
def test_the_start_is_what_init_says(init):
    there, _ = pair(f"invertible[init={init}]", 512)
    for down, up in (there.first, there.second):
        assert bool(up.weight.count_nonzero() == 0) is (init == "zero")
        assert up.bias.count_nonzero() == 0
        if init == "paper":
            assert up.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert down.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_fresh_adapter_changes_no_bit_and_detach_undoes_a_trained_one(model, logits, perturb, snapshot, dtype):
    model.to(dtype)
    before = logits(model)
    known = snapshot(model) if dtype == torch.float32 else None
    llmad.attach(model, "invertible")
    assert torch.equal(logits(model), before)
    perturb(model, size=0.5)
    assert not torch.allclose(logits(model), before, atol=1e-3)
    assert logits(model).dtype == dtype
    llmad.detach(model)
    assert torch.equal(logits(model), before)
    assert known is None or snapshot(model) == known


def test_tied_weights_stay_tied_and_as_they_are(tiny, logits, perturb):
    model = tiny("bloom")
    assert model.lm_head.weight is model.transformer.word_embeddings.weight
    llmad.attach(model, "invertible")
    perturb(model)
    assert model.lm_head.weight is model.transformer.word_embeddings.weight
    llmad.detach(model)
    assert torch.equal(logits(model), logits(tiny("bloom")))


@pytest.mark.parametrize("spec", ["invertible", "invertible[init=paper,activation=silu]"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_two_steps_train_every_parameter_and_nothing_else(model, ids, spec, dtype):
    base = {key: value.clone() for key, value in model.to(dtype).state_dict().items()}
    llmad.attach(model, spec).train()
    own = dict(llmad.parameters(model))
    adam, touched = torch.optim.AdamW(own.values(), lr=1e-2), set()
    for _ in range(2):
        adam.zero_grad()
        model(ids, labels=ids).loss.backward()
        touched |= {name for name, parameter in own.items() if parameter.grad.count_nonzero()}
        adam.step()
    assert touched == own.keys()
    assert {p.dtype for p in own.values()} == {torch.float32}
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in own.values()}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in base.items())


def test_both_places_hold_the_same_networks_trained_and_saved_once(
    model, architecture, logits, perturb, tiny, tmp_path
):
    llmad.attach(model, "invertible")
    assert len(list(llmad.parameters(model))) == 8
    perturb(model, size=0.5)
    folder = llmad.save(model, tmp_path / "adapter")
    assert len(load_file(folder / "adapter_model.safetensors")) == 8
    twin = llmad.load(tiny(architecture), folder)
    assert torch.equal(logits(twin), logits(model))
    assert len(list(llmad.parameters(twin))) == 8


def test_a_deep_copy_shares_within_itself_and_not_with_the_first(llama, logits, perturb):
    llmad.attach(llama, "invertible")
    perturb(llama)
    before, twin = logits(llama), copy.deepcopy(llama)
    assert torch.equal(logits(twin), before)
    assert len(list(llmad.parameters(twin))) == 8
    perturb(twin, seed=12)
    assert not torch.equal(logits(twin), before)
    assert torch.equal(logits(llama), before)


def test_a_seed_fixes_the_weights(llama):
    for name in ("a", "b"):
        torch.manual_seed(3)
        llmad.attach(llama, "invertible[init=paper]", name)
    pairs = zip(llmad.parameters(llama, "a"), llmad.parameters(llama, "b"), strict=True)
    assert all(torch.equal(first, second) for (_, first), (_, second) in pairs)


def test_it_attaches_on_the_meta_device(architecture, tiny):
    model = llmad.attach(tiny(architecture).to("meta"), "invertible")
    assert [parameter.is_meta for _, parameter in llmad.parameters(model)] == [True] * 8


def test_the_shared_weights_go_to_the_device_of_the_activations():
    _, back = pair("invertible")
    assert back(same, torch.empty(2, 3, 8, device="meta")).is_meta


def test_two_adapters_undo_each_other_in_the_right_order(tiny, perturb):
    """With blocks that do nothing, what the head gets is what the embedding gave."""
    model = tiny("gptj").double()
    model.transformer.h = nn.ModuleList()
    model.transformer.ln_f = nn.Identity()
    tokens = torch.arange(3, 9)[None]
    with torch.no_grad():
        before = model(tokens).logits
        for seed, name in enumerate(("a", "b")):
            llmad.attach(model, "invertible", name)
            perturb(model, name, size=0.5, seed=seed)
            model.double()
        assert not torch.allclose(model.transformer(tokens)[0], before @ torch.linalg.pinv(model.lm_head.weight.T))
        torch.testing.assert_close(model(tokens).logits, before, atol=1e-9, rtol=1e-9)


def test_a_cache_changes_no_token(model, ids, perturb):
    llmad.attach(model, "invertible")
    perturb(model)
    first, second = (model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cache) for cache in (True, False))
    assert torch.equal(first, second)


@pytest.mark.parametrize("sites", ["embed", "head@before", "embed@before+head@before", "embed+head"])
def test_one_place_without_the_other_is_refused(llama, snapshot, sites):
    known = snapshot(llama)
    with pytest.raises(UsageError, match="invertible sits at embed and head@before together, not at ") as caught:
        llmad.attach(llama, f"invertible[sites={sites}]")
    assert caught.value.hint == "leave sites at its default"
    assert snapshot(llama) == known


def test_what_cannot_work_is_refused(llama):
    with pytest.raises(UsageError, match="invertible does not fit block"):
        llmad.attach(llama, "invertible[sites=block]")
    with pytest.raises(UsageError, match="reduction_factor 17 leaves nothing of 16"):
        llmad.attach(llama, "invertible[reduction_factor=17]")
    with pytest.raises(ModelError, match="a width of 7 has no two halves"):
        pair("invertible", 7)
    sites = [Site("e", "embed", None, 1, 8), Site("h", "head", None, 16, 16, before=True)]
    with pytest.raises(ModelError, match="the embedding and the head differ in width"):
        llmad.parse_spec("invertible").assemble(sites)
    with pytest.raises(ModelError, match="not a linear update"):
        llmad.merge(llmad.attach(llama, "invertible"))
