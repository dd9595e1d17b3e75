"""Layouts by structure: blocks, roles, reasons; what cannot be known is said and not guessed."""

import copy

import pytest
import torch
from torch import nn

import llmad
from llmad.match import layout
from llmad.resolver import resolved
from tests import zoo

KINDS = [kind for kind in zoo.TYPES if kind not in zoo.UNBUILT and kind != "reformer"]
NO_HEAD = {"musicgen", "musicgen_melody"}  # a head for each codebook


def roles(kind, layer):
    return {site.role for site in resolved(zoo.build(kind)).sites if site.layer == layer}


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_has_blocks_and_places_in_them(kind):
    model = zoo.build(kind)
    found = resolved(model)
    assert len(found.blocks) >= 2
    outer = {site.role for site in found.sites if site.layer is None}
    assert outer == ({"model"} if kind in NO_HEAD else {"model", "embed", "head"})
    labels = [(site.label, site.role) for site in found.sites]
    assert len(set(labels)) == len(labels)
    for site in found.sites:
        assert model.get_submodule(site.path) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_map_of_the_blocks_has_a_finding_with_a_reason(kind):
    model = zoo.build(kind)
    found = resolved(model)
    told = {finding.path.partition("[")[0] for finding in found.findings}
    for path, module in model.named_modules():
        inside = found.layer(path) is not None
        if inside and isinstance(module, nn.Linear):
            assert any(path == known or path.startswith(f"{known}.") for known in told), path
    assert all(finding.why for finding in found.findings)
    assert all(bool(finding.role) or finding.confidence == "none" for finding in found.findings)


def test_the_text_has_the_blocks_and_not_the_picture():
    assert resolved(zoo.build("gemma3")).blocks[0] == "model.language_model.layers.0"
    assert resolved(zoo.build("git")).blocks[0] == "git.encoder.layer.0"


def test_lists_of_the_same_kind_go_on_with_each_other():
    assert {block.rpartition(".layers")[0] for block in resolved(zoo.build("hrm_text")).blocks} == {
        "model.L_module",
        "model.H_module",
    }


def test_lists_of_parts_make_one_block():
    paths = {site.role: site.path for site in resolved(zoo.build("xlm")).sites if site.layer == 1}
    assert paths["attn.q"] == "transformer.attentions.1.q_lin"
    assert paths["mlp.up"] == "transformer.ffns.1.lin1"
    assert "block" not in paths


def test_routers_are_left_alone_and_said():
    found = resolved(zoo.build("afmoe"))
    assert not any("router" in site.path for site in found.sites)
    assert {f.why for f in found.findings if f.path.endswith("router.gate")} == {"a router is left alone"}


def test_a_router_that_is_no_linear_map_is_counted_too():
    found = resolved(zoo.build("mixtral"))
    reasons = {finding.path: finding.why for finding in found.findings if not finding.role}
    assert reasons == {f"model.layers.{layer}.mlp.gate.weight": "a router is left alone" for layer in (0, 1)}


def test_shared_experts_keep_the_roles_of_an_mlp():
    found = resolved(zoo.build("deepseek_v3"))
    paths = {site.path for site in found.sites if site.role == "mlp.up"}
    assert paths == {"model.layers.0.mlp.up_proj", "model.layers.1.mlp.shared_experts.up_proj"}


def test_experts_that_compute_nothing_are_none():
    experts = {s.stack.expert for s in resolved(zoo.build("longcat_flash")).sites if s.role == "expert.up"}
    assert experts == {0, 1, 2, 3}


def test_what_a_text_does_not_pass_has_no_role():
    assert roles("mllama", 1) == set()
    assert not any("encoder_attn" in site.path for site in resolved(zoo.build("bart")).sites)


def test_a_part_that_adds_the_residual_itself_is_no_place_of_its_own():
    assert "attn" not in roles("bert", 0)
    assert "attn" in roles("xglm", 0)


@pytest.mark.parametrize(("kind", "streams"), [("qwen4_exp_text", 4), ("deepseek_v4", 1), ("llama", 1)])
def test_a_block_is_as_wide_as_the_residual_streams_that_lie_side_by_side_in_it(kind, streams, ids, logits, perturb):
    model = zoo.build(kind)
    wide = model.config.hidden_size
    found = {site.role: site for site in resolved(model).sites if site.layer == 1}
    assert found["block"].in_features == found["block"].out_features == streams * wide
    assert found["attn"].out_features == found["mlp"].out_features == wide
    seen = []
    hook = model.get_submodule(found["block"].path).register_forward_hook(lambda *call: seen.append(call[-1]))
    model(input_ids=ids)
    hook.remove()
    assert (seen[0][0] if isinstance(seen[0], tuple) else seen[0]).shape[-1] == streams * wide
    before = logits(model)
    perturb(llmad.attach(model, "series[sites=block]"))
    assert not torch.allclose(logits(model), before)


def test_mixers_have_roles():
    assert roles("mamba2", 0) == {"block", "mixer", "mixer.in", "mixer.out"}
    assert roles("falcon_h1", 0) >= {"attn.q", "mixer.in", "mlp.gate"}
    assert roles("rwkv", 0) == {"block", "mixer", "mixer.in", "mixer.out", "mlp", "mlp.up", "mlp.down"}


def test_an_order_that_cannot_be_traced_is_not_guessed(monkeypatch, perturb, logits):
    """Without a trace a fused map is there as a whole, under its own name, and `attn.q` is an error."""
    monkeypatch.setattr("llmad.tracing.uses", lambda *_: {})
    model = zoo.build("gpt_neox_japanese")
    found = resolved(model)
    assert {site.role for site in found.sites if "query_key_value" in site.path} == {"attn.qkv"}
    assert any("in an order that could not be traced" in finding.why for finding in found.findings)
    with pytest.raises(llmad.UsageError, match=r"site 'attn\.q' is not in this gpt_neox_japanese model"):
        llmad.attach(model, "lora[sites=attn.q]")
    before = logits(model)
    perturb(llmad.attach(model, "lora[sites=attn.qkv]"))
    assert not torch.allclose(logits(model), before)


def test_nothing_is_needed_but_shapes():
    model = zoo.build("deepseek_v3")
    assert resolved(copy.deepcopy(model).to("meta")).sites == resolved(model).sites


def test_the_layout_is_the_same_with_adapters_attached():
    model = zoo.build("codegen")
    before = layout(model)
    llmad.attach(model, "series[sites=attn.q+attn+mlp.down]")
    assert layout(model) == before


class Odd(nn.Module):
    """A model that says nothing of itself."""

    def __init__(self, **config):
        super().__init__()
        self.config = zoo.config("llama")
        self.config.model_type = "odd"
        self.embed = nn.Embedding(9, 8)

    def get_input_embeddings(self):
        return self.embed

    def get_output_embeddings(self):
        return None


def test_a_model_without_blocks_is_refused():
    with pytest.raises(llmad.ModelError, match="Odd has no list of blocks") as caught:
        llmad.sites(Odd())
    assert caught.value.code == "unknown-layout"
    assert "backbone plugin" in caught.value.hint


def test_blocks_that_end_the_gradient_are_refused():
    with pytest.raises(llmad.ModelError, match="_ReversibleFunction, which no gradient passes on a frozen base"):
        llmad.attach(zoo.build("reformer"), "lora")


def test_a_model_without_an_embedding_is_refused(monkeypatch):
    monkeypatch.setattr(Odd, "get_input_embeddings", lambda self: None)
    with pytest.raises(llmad.ModelError, match="does not say where its token embedding is"):
        llmad.sites(Odd())
