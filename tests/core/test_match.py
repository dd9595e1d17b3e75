from collections import Counter

import pytest
import torch
from torch import nn

import llmad
from llmad import ModelError, UsageError
from llmad.match import layout, select
from tests import zoo

LINEAR = {"attn.q", "attn.k", "attn.v", "attn.o", "mlp.up", "mlp.down"}
PARTS = {
    "llama": LINEAR | {"mlp.gate", "attn", "mlp"},
    "bloom": LINEAR | {"attn", "mlp"},
    "gptj": LINEAR | {"attn", "mlp"},
    "opt": LINEAR | {"attn"},
    "opt-350m": LINEAR | {"attn"},
}


def chosen(model, text):
    return select(model, llmad.parse_spec(text))


def test_the_roles_have_the_same_names_on_every_architecture(model, architecture):
    found = llmad.sites(model)
    assert {site.role for site in found if site.layer is None} == {"model", "embed", "head"}
    for layer in range(3):
        assert {site.role for site in found if site.layer == layer} == PARTS[architecture] | {"block"}


def test_every_site_is_called_in_a_forward(model, ids):
    called = set()
    for site in llmad.sites(model):
        hook = lambda module, inputs, output, path=site.path: called.add(path)  # noqa: E731  a hook of one line
        model.get_submodule(site.path).register_forward_hook(hook)
    model(ids)
    assert called == {site.path for site in llmad.sites(model)}


def test_the_shapes_are_those_of_the_hidden_states(model, ids):
    widths = {}
    for site in llmad.sites(model):
        module = model.get_submodule(site.path)

        def look(module, args, kwargs, output, path=site.path):
            x = args[0] if args else next(iter(kwargs.values()))
            out = output[0] if not isinstance(output, torch.Tensor) else output
            widths[path] = x.shape[-1], out.shape[-1]

        module.register_forward_hook(look, with_kwargs=True)
    model(ids)
    for site in llmad.sites(model):
        wide_in, wide_out = widths[site.path]
        fused = site.rows.groups * site.rows.stride if site.rows else site.out_features
        assert wide_out == fused
        assert site.role in ("model", "embed") or wide_in == site.in_features


def test_the_rows_of_a_fused_linear_part_it(tiny):
    sites = [site for site in llmad.sites(tiny("bloom")) if site.layer == 0 and site.rows]
    assert sorted(row for site in sites for row in site.rows.index()) == list(range(96))


def test_the_rows_of_bloom_are_those_that_its_attention_reads(tiny):
    model = tiny("bloom")
    attention = model.transformer.h[0].self_attention
    fused = torch.arange(96.0).view(1, 1, 96)
    for role, heads in zip("qkv", attention._reshape(fused), strict=True):
        (site,) = [site for site in llmad.sites(model) if site.layer == 0 and site.role == f"attn.{role}"]
        assert heads.flatten().tolist() == site.rows.index()


def test_sites_need_no_weights(tiny):
    assert llmad.sites(tiny("llama").to("meta")) == llmad.sites(tiny("llama"))


def test_sites_are_the_same_with_an_adapter_attached(model):
    before = llmad.sites(model)
    llmad.attach(model, "lora[sites=linear]")
    assert llmad.sites(model) == before


def test_layers_choose_blocks(model):
    assert {site.layer for site in chosen(model, "lora[layers=-2:]")} == {1, 2}
    assert {site.layer for site in chosen(model, "lora[layers=0+2]")} == {0, 2}


def test_a_place_chosen_twice_is_taken_once(llama):
    assert len(chosen(llama, "lora[sites=attn.q+attn.*]")) == 12


def test_a_path_finds_the_roles_of_what_it_matches(llama):
    assert chosen(llama, r"lora[sites=path:.*\.q_proj]") == chosen(llama, "lora[sites=attn.q]")


def test_a_path_to_a_fused_linear_means_the_whole(tiny):
    sites = chosen(tiny("bloom"), "lora[sites=path:.*query_key_value]")
    assert {(site.role, site.out_features, site.rows) for site in sites} == {("path", 96, None)}
    assert [site.layer for site in sites] == [0, 1, 2]


def test_a_path_reaches_linear_maps_that_have_no_role(tiny):
    (site,) = chosen(tiny("opt-350m"), "lora[sites=path:.*project_in]")
    assert (site.role, site.layer, site.in_features, site.out_features) == ("path", None, 16, 32)


def test_a_path_does_not_find_adapters(llama):
    before = chosen(llama, "lora[sites=path:.*proj.*]")
    llmad.attach(llama, "lora[sites=linear]")
    assert chosen(llama, "lora[sites=path:.*proj.*]") == before


def test_before_takes_and_gives_the_input(tiny):
    (site,) = chosen(tiny("bloom"), "lora[sites=mlp.down@before,layers=0]")
    assert (site.before, site.in_features, site.out_features) == (True, 128, 128)


def test_the_order_is_the_models(llama):
    assert chosen(llama, "lora[sites=mlp.down+attn.q]") == [
        site for site in llmad.sites(llama) if site.role in ("attn.q", "mlp.down")
    ]


def test_depth_counts_the_blocks(tiny):
    assert len(layout(tiny("gptj", layers=4)).blocks) == 4


@pytest.mark.parametrize(("text", "code", "words"), [
    ("lora[sites=mlp.gate]", "no-match", "mlp.gate"),
    ("series[sites=mlp]", "no-match", "mlp"),
    ("lora[sites=attn.q+mlp.gate]", "no-match", "mlp.gate"),
    ("lora[sites=path:nowhere]", "no-match", "path:nowhere"),
    ("lora[layers=9]", "no-match", "'9'"),
    ("lora[layers=0+9:]", "no-match", "'9:'"),
    ("lora[sites=head,layers=0]", "no-match", "head"),
    ("lora[sites=attn]", "misfit", "does not fit attn"),
    ("lora[sites=model]", "misfit", "does not fit model"),
    ("series[sites=embed]", "misfit", "does not fit embed"),
    ("prompt[sites=attn.q]", "misfit", "does not fit attn.q"),
])  # fmt: skip
def test_what_has_no_place_is_refused(tiny, text, code, words):
    with pytest.raises(UsageError) as caught:
        chosen(tiny("opt"), text)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert caught.value.hint or "layers" in str(caught.value)


def test_a_hint_names_only_what_the_model_has(tiny):
    with pytest.raises(UsageError) as caught:
        chosen(tiny("opt"), "lora[sites=mlp.gate]")
    assert "mlp.up" in caught.value.hint
    assert "mlp.gate" not in caught.value.hint


def test_a_module_without_config_is_refused():
    with pytest.raises(ModelError) as caught:
        llmad.sites(nn.Linear(2, 2))
    assert caught.value.code == "not-a-model"


def test_an_undescribed_architecture_is_read_from_its_structure(model):
    known = llmad.sites(model)
    model.config.model_type = "lama"
    assert set(llmad.sites(model)) == set(known)
    assert layout(model).backbone == ""


class TestDefaults:
    """A default placement finds a stand-in where a block lacks its place; a wish is not bent."""

    def roles(self, kind, spec):
        found = select(zoo.build(kind), llmad.parse_spec(spec))
        return Counter((site.layer, site.role) for site in found)

    def test_a_mixer_stands_in_for_attention(self):
        assert self.roles("mamba", "lora") == {(0, "mixer.in"): 1, (1, "mixer.in"): 1}
        assert self.roles("mamba", "series") == {(0, "mixer"): 1, (1, "mixer"): 1}

    def test_each_block_by_itself(self):
        wanted = {(0, "mixer.in"): 1, (1, "attn.q"): 1, (1, "attn.v"): 1}
        assert self.roles("lfm2", "lora") == wanted

    def test_a_mixture_stands_in_for_the_way_down(self):
        wanted = {(layer, role): 1 for layer in (0, 1) for role in ("attn.o", "mlp")}
        assert self.roles("mixtral", "series") == wanted

    def test_every_expert_has_factors_of_its_own(self):
        found = self.roles("mixtral", "ia3")
        assert found[0, "expert.down"] == 4
        assert found[0, "attn.k"] == 1

    def test_what_was_asked_for_is_not_replaced(self):
        with pytest.raises(UsageError, match=r"site 'attn\.q' is not in this mamba model"):
            self.roles("mamba", "lora[sites=attn.q]")

    def test_no_place_at_all_is_an_error_that_says_what_there_is(self):
        with pytest.raises(UsageError, match=r"neither attn\.q nor attn\.v nor a stand-in") as caught:
            self.roles("xlnet", "lora")
        assert "mlp.up" in caught.value.hint

    @pytest.mark.parametrize(("place", "role"), [("attn.qkv", "attn.qkv"), (r"path:.*query_key_value", "path")])
    def test_a_default_means_what_it_would_mean_if_it_was_asked_for(self, place, role):
        class Own(type(llmad.parse_spec("lora"))):
            name = "own"
            sites: llmad.Sites = llmad.Sites(place)

        found = select(zoo.build("bloom"), Own())
        assert [(site.layer, site.role) for site in found] == [(0, role), (1, role)]

    def test_experts_are_no_part_of_linear(self):
        found = self.roles("mixtral", "lora[sites=linear]")
        assert {role for _, role in found} == {"attn.q", "attn.k", "attn.v", "attn.o"}


def test_a_stack_without_its_head_is_refused(llama):
    with pytest.raises(ModelError) as caught:
        llmad.sites(llama.model)
    assert caught.value.code == "undescribed-model"
    assert "AutoModelForCausalLM" in caught.value.hint
