"""LoReFT against its equation, and the orthonormal rows of R."""

import copy

import pytest
import torch
from torch import nn

import llmad
from llmad import ModelError, Site, UsageError


def layer_of(text, width=8):
    return llmad.parse_spec(text).build(Site("x", "block", 0, width, width))


def attached(model):
    """The layers of an adapter on a model."""
    return [module for _, module in model.named_modules() if hasattr(module, "rotation")]


@pytest.mark.parametrize("r", [1, 4, 8])
def test_the_output_is_the_equation(r):
    """out = h + R^T (W h + b - R h), in float64."""
    layer = layer_of(f"loreft[r={r},init=paper]").double()
    linear, x = nn.Linear(8, 8).double(), torch.randn(2, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        layer.basis.normal_()
        h, rows = linear(x), layer.rotation()
        weight, bias = layer.edit.weight + rows, layer.edit.bias
        edit = (weight @ h[..., None])[..., 0] + bias - (rows @ h[..., None])[..., 0]
        wanted = h + (rows.T @ edit[..., None])[..., 0]
    torch.testing.assert_close(rows @ rows.T, torch.eye(r).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(rows.T @ rows @ layer.basis.T, layer.basis.T, atol=1e-12, rtol=0)  # the same subspace
    torch.testing.assert_close(layer(linear, x), wanted, atol=1e-12, rtol=1e-9)


def test_it_replaces_what_the_hidden_states_are_in_the_subspace_and_nothing_else():
    layer, h = layer_of("loreft[init=paper]").double(), torch.randn(5, 8, dtype=torch.float64)
    out, rows = layer(lambda x: x, h), layer.rotation()
    torch.testing.assert_close(out @ rows.T, h @ (layer.edit.weight + rows).T + layer.edit.bias)
    outside = torch.eye(8).double() - rows.T @ rows
    torch.testing.assert_close(out @ outside, h @ outside)


def test_the_start_is_what_init_says():
    zero, paper = layer_of("loreft", 64), layer_of("loreft[init=paper]", 64)
    assert zero.edit.weight.count_nonzero() == zero.edit.bias.count_nonzero() == 0
    weight = paper.edit.weight + paper.rotation()
    assert 0.1 < weight.abs().max() <= 1 / 8 + 1e-6
    for layer in (zero, paper):
        torch.testing.assert_close(layer.rotation(), layer.basis, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_rows_stay_orthonormal_in_training(model, ids, dtype):
    llmad.attach(model.to(dtype), "loreft")
    adam = torch.optim.AdamW([p for _, p in llmad.parameters(model)], lr=0.1, weight_decay=0.1)
    for _ in range(4):
        adam.zero_grad()
        model(ids, labels=ids).loss.backward()
        adam.step()
    for layer in attached(model):
        rows = layer.rotation()
        assert rows.dtype == torch.float32
        assert (layer.basis @ layer.basis.T - torch.eye(4)).abs().max() > 0.01
        torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-6, rtol=0)
    model.to(torch.bfloat16)
    assert {layer.rotation().dtype for layer in attached(model)} == {torch.float32}


@pytest.mark.parametrize("spec", ["loreft", "loreft[r=8,sites=attn.o+mlp.down]", "loreft[sites=block@before+head]"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_fresh_adapter_changes_no_bit_and_detach_undoes_a_trained_one(model, logits, perturb, snapshot, spec, dtype):
    model.to(dtype)
    before = logits(model)
    known = snapshot(model) if dtype == torch.float32 else None
    llmad.attach(model, spec)
    assert torch.equal(logits(model), before)
    perturb(model, size=0.5)
    assert not torch.allclose(logits(model), before, atol=1e-3)
    assert logits(model).dtype == dtype
    llmad.detach(model)
    assert torch.equal(logits(model), before)
    assert known is None or snapshot(model) == known


def test_a_fresh_adapter_changes_no_bit_after_a_change_of_dtype(llama, logits):
    llmad.attach(llama, "loreft").to(torch.bfloat16)
    with llmad.disabled(llama):
        before = logits(llama)
    assert torch.equal(logits(llama), before)


@pytest.mark.parametrize("spec", ["loreft", "loreft[init=paper,r=2]", "loreft[dropout=0.1]"])
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


def test_the_gradient_of_the_basis_is_right():
    layer = layer_of("loreft[r=3,init=paper]", 5).double()
    h = torch.randn(2, 5, dtype=torch.float64)

    def out(basis):
        return torch.func.functional_call(layer, {"basis": basis}, (lambda x: x, h))

    assert torch.autograd.gradcheck(out, (layer.basis.detach().requires_grad_(),))


def test_it_is_saved_and_loaded_to_the_bit(model, architecture, logits, perturb, tiny, tmp_path):
    perturb(llmad.attach(model, "loreft"))
    folder = llmad.save(model, tmp_path / "adapter")
    twin = llmad.load(tiny(architecture), folder)
    assert torch.equal(logits(twin), logits(model))
    pairs = zip(llmad.parameters(model), llmad.parameters(twin), strict=True)
    assert all(torch.equal(first, second) for (_, first), (_, second) in pairs)


def test_a_deep_copy_is_independent(llama, logits, perturb):
    perturb(llmad.attach(llama, "loreft"))
    before, twin = logits(llama), copy.deepcopy(llama)
    assert torch.equal(logits(twin), before)
    perturb(twin, seed=12)
    assert not torch.equal(logits(twin), before)
    assert torch.equal(logits(llama), before)


def test_a_seed_fixes_the_weights(llama):
    for name in ("a", "b"):
        torch.manual_seed(3)
        llmad.attach(llama, "loreft[init=paper]", name)
    pairs = zip(llmad.parameters(llama, "a"), llmad.parameters(llama, "b"), strict=True)
    assert all(torch.equal(first, second) for (_, first), (_, second) in pairs)


@pytest.mark.parametrize("init", ["zero", "paper"])
def test_it_attaches_on_the_meta_device(architecture, tiny, init):
    model = llmad.attach(tiny(architecture).to("meta"), f"loreft[init={init}]")
    assert all(parameter.is_meta for _, parameter in llmad.parameters(model))


def test_a_cache_changes_no_token(model, ids, perturb):
    perturb(llmad.attach(model, "loreft"))
    first, second = (model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cache) for cache in (True, False))
    assert torch.equal(first, second)


def test_what_cannot_work_is_refused(llama, snapshot):
    known = snapshot(llama)
    with pytest.raises(UsageError, match=r"loreft: r 33 is more than the 32 dimensions of model\.layers\.0"):
        llmad.attach(llama, "loreft[r=33]")
    with pytest.raises(UsageError, match="loreft does not fit model"):
        llmad.attach(llama, "loreft[sites=model]")
    assert snapshot(llama) == known
    with pytest.raises(ModelError, match="not a linear update"):
        llmad.merge(llmad.attach(llama, "loreft"))
