"""GPT-NeoX: q, k and v take turns, head by head."""

import pytest
import torch

import llmad


@pytest.fixture
def architecture():
    return "gpt_neox"


def test_the_sites_and_their_widths(model):
    widths = {
        site.role: (site.in_features, site.out_features) for site in llmad.sites(model) if site.layer in (None, 1)
    }
    assert widths == {
        "model": (32, 32), "embed": (1, 32), "block": (32, 32),
        "attn": (32, 32), "attn.q": (32, 32), "attn.k": (32, 32),
        "attn.v": (32, 32), "attn.o": (32, 32), "mlp": (32, 32),
        "mlp.up": (32, 64), "mlp.down": (64, 32), "head": (32, 97),
    }  # fmt: skip


def test_the_rows_are_those_that_the_attention_reads(model, heads):
    fused = []
    model.get_submodule("gpt_neox.layers.0.attention.query_key_value").register_forward_hook(
        lambda module, args, out: fused.append(out)
    )
    for role, own in heads(model).items():
        (site,) = [site for site in llmad.sites(model) if site.layer == 0 and site.role == f"attn.{role}"]
        assert site.path == "gpt_neox.layers.0.attention.query_key_value"
        assert torch.equal(fused[0][:, 0, site.rows.index()], own[:, 0])


def test_every_head_has_its_own_block_of_rows(model):
    rows = {site.role: site.rows for site in llmad.sites(model) if site.layer == 0 and site.rows}
    assert rows["attn.q"].index()[:9] == [0, 1, 2, 3, 4, 5, 6, 7, 24]
    assert sorted(row for role in rows.values() for row in role.index()) == list(range(96))
