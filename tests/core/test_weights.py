"""The weight of a place, whichever way the base keeps it."""

import pytest
import torch

import llmad
from llmad import weights


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt2", "phi3", "opt"])
def test_weight_and_bias_are_what_the_place_computes_with(tiny, family):
    model = tiny(family)
    for site in llmad.sites(model):
        if site.role in ("attn.q", "attn.v", "mlp.up"):
            place, x = model.get_submodule(site.path), torch.randn(3, site.in_features)
            whole = place(x)
            own = whole[:, site.rows.index()] if site.rows else whole
            found = torch.nn.functional.linear(x, weights.weight(place, site), weights.bias(place, site))
            torch.testing.assert_close(found, own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt2", "phi3"])
def test_what_is_written_is_read_again_and_the_rest_is_left(tiny, family):
    model = tiny(family)
    k, v = (next(site for site in llmad.sites(model) if site.role == role) for role in ("attn.k", "attn.v"))
    place = model.get_submodule(k.path)
    new, other = torch.randn(k.out_features, k.in_features), weights.weight(model.get_submodule(v.path), v).clone()
    bias = None if weights.bias(place, k) is None else torch.randn(k.out_features)
    weights.write(place, k, new, bias)
    assert torch.equal(weights.weight(place, k), new)
    assert bias is None or torch.equal(weights.bias(place, k), bias)
    assert torch.equal(weights.weight(model.get_submodule(v.path), v), other)


def test_a_place_without_a_weight_is_refused(llama):
    site = next(site for site in llmad.sites(llama) if site.role == "attn")
    with pytest.raises(llmad.ModelError, match="the place is no linear map"):
        weights.weight(llama.get_submodule(site.path), site)
