"""Compacter against its equation, and the parameters that its places share."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import llmad
from llmad import ModelError, Site, UsageError

PAPER = "compacter[init=paper,bottleneck=8]"


def layer_of(text, width=8):
    site = Site("x", "attn.o", 0, 5, width)
    return llmad.parse_spec(text).assemble([site])[site]


def rules(model, name="default"):
    return [parameter for key, parameter in llmad.parameters(model, name) if key.endswith("rule")]


def projected(rule, own, x):
    """W^T x + b with W = sum_i A_i (x) s_i t_i written out, in float64."""
    rule, left, right, bias = (part.detach().double() for part in (rule, own["left"], own["right"], own["bias"]))
    weight = sum(torch.kron(a, s @ t) for a, s, t in zip(rule, left, right, strict=True))
    return x @ weight + bias


@pytest.mark.parametrize(("activation", "function"), [("gelu", nn.functional.gelu), ("tanh", torch.tanh)])
@pytest.mark.parametrize("options", ["", ",phm_dim=2", ",phm_rank=3", ",shared=false"])
def test_the_output_is_the_equation(activation, function, options):
    layer = layer_of(f"compacter[init=paper,bottleneck=12,activation={activation}{options}]", 16)
    with torch.no_grad():
        for parameter in layer.parameters():  # a fresh A_i is small and b is zero: hide nothing behind them
            parameter.normal_()
    layer.double()
    linear, x = nn.Linear(5, 16).double(), torch.randn(2, 3, 5, dtype=torch.float64)
    h = linear(x)
    down, up = layer.rule[0], layer.rule[-1]
    wanted = h + projected(up, layer.up, function(projected(down, layer.down, h)))
    torch.testing.assert_close(layer(linear, x), wanted, atol=1e-9, rtol=1e-9)


def test_the_start_is_what_init_says():
    paper, zero = layer_of("compacter[init=paper]", 256), layer_of("compacter", 256)
    for layer in (paper, zero):
        assert layer.rule.std().item() == pytest.approx(0.01, rel=0.5)
        assert layer.down["left"].abs().max() <= (6 / (256 / 4 + 1)) ** 0.5
        assert layer.down["bias"].count_nonzero() == layer.up["bias"].count_nonzero() == 0
    assert paper.up["right"].count_nonzero() == 256
    assert zero.up["right"].count_nonzero() == 0
    assert zero.up["left"].count_nonzero() == 24


@pytest.mark.parametrize("spec", ["compacter", "compacter[sites=linear,shared=false]", "compacter[sites=block]"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_fresh_adapter_changes_no_bit_and_detach_undoes_a_trained_one(model, logits, perturb, snapshot, spec, dtype):
    model.to(dtype)
    before = logits(model)
    known = snapshot(model) if dtype == torch.float32 else None
    llmad.attach(model, spec)
    assert torch.equal(logits(model), before)
    perturb(model, size=1.0)
    assert not torch.allclose(logits(model), before, atol=1e-3)
    assert logits(model).dtype == dtype
    llmad.detach(model)
    assert torch.equal(logits(model), before)
    assert known is None or snapshot(model) == known


@pytest.mark.parametrize("spec", ["compacter", PAPER, "compacter[dropout=0.1,shared=false]"])
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


@pytest.mark.parametrize(("spec", "number", "each"), [("compacter", 1, 1), ("compacter[shared=false]", 6, 2)])
def test_a_shared_rule_is_counted_and_saved_once(llama, logits, perturb, tiny, tmp_path, spec, number, each):
    llmad.attach(llama, spec)
    assert len(rules(llama)) == number
    factors = 2 * (32 + 24) + (32 + 24)  # s_i and t_i of both projections, and the biases
    assert sum(p.numel() for _, p in llmad.parameters(llama)) == number * each * 4**3 + 6 * factors
    perturb(llama, size=1.0)
    folder = llmad.save(llama, tmp_path / "adapter")
    saved = load_file(folder / "adapter_model.safetensors")
    assert len([key for key in saved if key.endswith("rule")]) == number
    twin = llmad.load(tiny("llama"), folder, trainable=True)
    assert torch.equal(logits(twin), logits(llama))
    assert len(rules(twin)) == number


def test_a_deep_copy_shares_within_itself_and_not_with_the_first(llama, logits, perturb):
    llmad.attach(llama, "compacter")
    perturb(llama, size=1.0)
    before, twin = logits(llama), copy.deepcopy(llama)
    assert torch.equal(logits(twin), before)
    assert len(rules(twin)) == 1
    perturb(twin, seed=12)
    assert not torch.equal(logits(twin), before)
    assert torch.equal(logits(llama), before)


def test_a_seed_fixes_the_weights(llama):
    for name in ("a", "b"):
        torch.manual_seed(3)
        llmad.attach(llama, PAPER, name)
    pairs = zip(llmad.parameters(llama, "a"), llmad.parameters(llama, "b"), strict=True)
    assert all(torch.equal(first, second) for (_, first), (_, second) in pairs)


def test_it_attaches_on_the_meta_device(architecture, tiny):
    model = llmad.attach(tiny(architecture).to("meta"), "compacter")
    assert all(parameter.is_meta for _, parameter in llmad.parameters(model))
    assert len(rules(model)) == 1


def test_the_shared_rule_goes_to_the_device_of_the_activations():
    layer = layer_of(PAPER)
    layer.up.to("meta")
    layer.down.to("meta")
    assert not layer.rule.is_meta
    assert layer(lambda x: x, torch.empty(2, 3, 8, device="meta")).is_meta


def test_a_cache_changes_no_token(model, ids, perturb):
    llmad.attach(model, "compacter")
    perturb(model, size=0.5)
    first, second = (model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cache) for cache in (True, False))
    assert torch.equal(first, second)


def test_what_cannot_work_is_refused(llama, tiny, snapshot):
    with pytest.raises(UsageError, match="compacter: bottleneck 10 is not a multiple of phm_dim 4"):
        llmad.parse_spec("compacter[bottleneck=10]")
    known = snapshot(llama)
    with pytest.raises(ModelError, match=r"lm_head: width 97 is not a multiple of phm_dim 4") as caught:
        llmad.attach(llama, "compacter[sites=head]")
    assert caught.value.code == "indivisible"
    with pytest.raises(ModelError, match="width 32 is not a multiple of phm_dim 3"):
        llmad.attach(llama, "compacter[phm_dim=3]")
    assert snapshot(llama) == known
    with pytest.raises(ModelError, match="not a linear update"):
        llmad.merge(llmad.attach(llama, "compacter"))
