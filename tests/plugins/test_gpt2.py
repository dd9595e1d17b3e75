"""GPT-2: thirds of a linear map whose weight is transposed."""

import pytest
import torch

import llmad


@pytest.fixture
def architecture():
    return "gpt2"


def test_the_sites_and_their_widths(model):
    widths = {
        site.role: (site.in_features, site.out_features) for site in llmad.sites(model) if site.layer in (None, 1)
    }
    assert widths == {
        "model": (32, 32), "embed": (1, 32), "block": (32, 32),
        "attn": (32, 32), "attn.q": (32, 32), "attn.k": (32, 32),
        "attn.v": (32, 32), "attn.o": (32, 32), "mlp": (32, 32),
        "mlp.up": (32, 128), "mlp.down": (128, 32), "head": (32, 97),
    }  # fmt: skip


def test_the_rows_are_those_that_the_attention_reads(model, heads):
    fused = []
    model.get_submodule("transformer.h.0.attn.c_attn").register_forward_hook(
        lambda module, args, out: fused.append(out)
    )
    for role, own in heads(model).items():
        (site,) = [site for site in llmad.sites(model) if site.layer == 0 and site.role == f"attn.{role}"]
        assert site.path == "transformer.h.0.attn.c_attn"
        assert torch.equal(fused[0][:, 0, site.rows.index()], own[:, 0])


def test_merging_changes_the_columns_of_the_role_alone(model, perturb):
    fused = model.transformer.h[0].attn.c_attn  # its weight is (in, out)
    before = fused.weight.clone()
    llmad.attach(model, "lora[sites=attn.k,layers=0]")
    perturb(model)
    (lora,) = fused.adapters["default"].values()
    llmad.merge(model)
    torch.testing.assert_close(fused.weight[:, 32:64], before[:, 32:64] + lora.delta().T)
    assert not torch.allclose(fused.weight[:, 32:64], before[:, 32:64], atol=1e-3)
    assert torch.equal(fused.weight[:, :32], before[:, :32])
    assert torch.equal(fused.weight[:, 64:], before[:, 64:])
