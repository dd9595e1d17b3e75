"""Phi-3: q wider than k and v in one linear, gate and up in another."""

import pytest
import torch

import llmad


@pytest.fixture
def architecture():
    return "phi3"


def test_the_sites_and_their_widths(model):
    widths = {
        site.role: (site.in_features, site.out_features) for site in llmad.sites(model) if site.layer in (None, 1)
    }
    assert widths == {
        "model": (32, 32), "embed": (1, 32), "block": (32, 32),
        "attn": (32, 32), "attn.q": (32, 32), "attn.k": (32, 16),
        "attn.v": (32, 16), "attn.o": (32, 32), "mlp": (32, 32),
        "mlp.gate": (32, 48), "mlp.up": (32, 48), "mlp.down": (48, 32),
        "head": (32, 97),
    }  # fmt: skip


def test_the_rows_are_those_that_the_attention_reads(model, heads):
    fused = []
    model.get_submodule("model.layers.0.self_attn.qkv_proj").register_forward_hook(
        lambda module, args, out: fused.append(out)
    )
    for role, own in heads(model).items():
        (site,) = [site for site in llmad.sites(model) if site.layer == 0 and site.role == f"attn.{role}"]
        assert site.path == "model.layers.0.self_attn.qkv_proj"
        assert torch.equal(fused[0][:, 0, site.rows.index()], own[:, 0])


@torch.no_grad()
def gate_and_up(model, ids):
    """What the first block's MLP takes for its gate and for its up; ones in the place of the activation let up pass."""
    mlp, seen = model.model.layers[0].mlp, {}

    def gate(module, args, out):
        seen["gate"] = args[0]
        return torch.ones_like(out)

    hooks = [mlp.activation_fn.register_forward_hook(gate)]
    hooks.append(mlp.down_proj.register_forward_pre_hook(lambda module, args: seen.update(up=args[0])))
    model(ids)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("role", "other"), [("gate", "up"), ("up", "gate")])
def test_an_adapter_on_one_of_gate_and_up_reaches_that_one_alone(model, ids, perturb, role, other):
    before, fused, inputs = gate_and_up(model, ids), model.model.layers[0].mlp.gate_up_proj, []
    fused.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    llmad.attach(model, f"lora[sites=mlp.{role},layers=0]")
    perturb(model)
    after = gate_and_up(model, ids)
    (lora,) = fused.adapters["default"].values()
    torch.testing.assert_close(after[role], before[role] + inputs[0] @ lora.delta().T, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(after[role], before[role], atol=1e-3)
    assert torch.equal(after[other], before[other])


def test_the_parts_of_both_linears_take_every_row_once(model):
    rows = {site.role: site.rows for site in llmad.sites(model) if site.layer == 0 and site.rows}
    assert sorted(row for role in ("attn.q", "attn.k", "attn.v") for row in rows[role].index()) == list(range(64))
    assert sorted(row for role in ("mlp.gate", "mlp.up") for row in rows[role].index()) == list(range(96))
    assert [rows[f"attn.{role}"].start for role in "qkv"] == [0, 32, 48]


def test_a_config_that_says_nothing_of_k_and_v_has_as_many_heads_there():
    from transformers import Phi3Config

    assert Phi3Config(num_attention_heads=4).num_key_value_heads == 4
