"""AdapterFusion against its equation, and trained on top of adapters that stay as they are."""

import json

import pytest
import torch

import llmad


@pytest.fixture
def fused(model, perturb):
    for name, spec, seed in (("a", "series", 1), ("b", "lora[sites=attn.o+mlp.down]", 2)):
        perturb(llmad.attach(model, spec, name), name, seed=seed)
    for _, parameter in [*llmad.parameters(model, "a"), *llmad.parameters(model, "b")]:
        parameter.requires_grad_(False)
    return llmad.attach(model, "fusion[adapters=a+b]", "fusion")


def place_of(model):
    return next(site for site in llmad.sites(model) if site.role == "attn.o")


def test_the_output_is_the_equation(fused, perturb):
    perturb(fused, "fusion")
    place = fused.get_submodule(place_of(fused).path)
    x, outputs = torch.randn(2, 3, place.in_features), {}
    with torch.no_grad():
        for name in ("a", "b", "fusion"):
            llmad.activate(fused, name)
            outputs[name] = place(x)
        with llmad.disabled(fused):
            h = place(x)
        layer = place.adapters["fusion"]["attn_o"]
        z = torch.stack([outputs["a"], outputs["b"]], dim=2)
        scores = torch.einsum("blnd,bld->bln", z @ layer.key.weight.T + layer.key.bias,
                              h @ layer.query.weight.T + layer.query.bias)  # fmt: skip
        wanted = torch.einsum("bln,blnd->bld", scores.softmax(-1), z @ layer.value.weight.T)
    torch.testing.assert_close(outputs["fusion"], wanted, atol=1e-5, rtol=1e-5)


def test_only_the_fusion_is_trained_and_the_others_act_through_it_alone(fused, ids):
    before = {name: parameter.clone() for name, parameter in llmad.parameters(fused, "a")}
    own = dict(llmad.parameters(fused, "fusion"))
    adam = torch.optim.AdamW([parameter for parameter in fused.parameters() if parameter.requires_grad], lr=1e-2)
    for _ in range(2):
        adam.zero_grad()
        fused(ids, labels=ids).loss.backward()
        adam.step()
    biases = {name for name in own if name.endswith("key.bias")}  # the same for all adapters: softmax takes it out
    assert all(own[name].grad.count_nonzero() for name in own.keys() - biases)
    assert all(torch.equal(parameter, before[name]) for name, parameter in llmad.parameters(fused, "a"))


def test_it_is_saved_without_the_others_and_loaded_on_top_of_them(fused, architecture, tiny, logits, perturb, tmp_path):
    perturb(fused, "fusion")
    for name in ("a", "b", "fusion"):
        llmad.save(fused, tmp_path / name, name)
    again = tiny(architecture)
    with pytest.raises(llmad.UsageError, match="no adapter 'a' is attached") as caught:
        llmad.load(again, tmp_path / "fusion")
    assert caught.value.code == "not-attached"
    for name in ("a", "b", "fusion"):
        llmad.load(again, tmp_path / name, name)
    assert torch.equal(logits(again), logits(fused))
    config = json.loads((tmp_path / "fusion" / "adapter_config.json").read_text())
    assert config["options"]["adapters"] == "a+b"


def test_it_can_bring_the_others_along(fused, architecture, tiny, logits, perturb, tmp_path):
    perturb(fused, "fusion")
    llmad.save(fused, tmp_path / "fusion", "fusion", built_on=("a", "b"))
    again = llmad.load(tiny(architecture), tmp_path / "fusion")
    assert torch.equal(logits(again), logits(fused))
    assert not any(parameter.requires_grad for _, parameter in llmad.parameters(again, "a"))


def test_what_it_fuses_is_not_detached_before_it_and_acts_by_itself_after(fused, logits):
    llmad.activate(fused, "a", "b")
    before = logits(fused)
    llmad.detach(fused, "fusion")
    assert torch.equal(logits(fused), before)
    llmad.attach(fused, "fusion[adapters=a+b]", "fusion")
    assert not torch.equal(logits(fused), before)
    with pytest.raises(llmad.UsageError, match="'fusion' works with 'a'") as caught:
        llmad.detach(fused, "a")
    assert caught.value.code == "in-use"
    llmad.detach(fused, "fusion")
    assert torch.equal(logits(fused), before)


@pytest.mark.parametrize(("specs", "told", "code"), [
    (("series", "lora"), "no adapter 'a' sits at|takes over 'b', which also sits at", "not-covered"),
    (("series", "series[sites=mlp.down]"), "no adapter 'b' sits at", "not-here"),
])  # fmt: skip
def test_adapters_that_sit_elsewhere_are_refused(llama, snapshot, specs, told, code):
    for name, spec in zip("ab", specs, strict=True):
        llmad.attach(llama, spec, name)
    before = snapshot(llama)
    with pytest.raises(llmad.LlmadError, match=told) as caught:
        llmad.attach(llama, "fusion[adapters=a+b]", "fusion")
    assert caught.value.code == code
    assert snapshot(llama) == before


@pytest.mark.parametrize("names", ["a", "a+", "", "a,b", "a+a"])
def test_names_that_are_no_sum_are_refused(names):
    with pytest.raises(llmad.UsageError):
        llmad.parse_spec(f"fusion[adapters={names}]")


def test_rows_of_one_batch_may_be_fused_or_not(fused, ids, perturb):
    perturb(fused, "fusion")
    wanted = []
    for names in (["fusion"], ["a"]):
        llmad.activate(fused, *names)
        wanted.append(fused(ids).logits)
    with llmad.per_row(fused, ["fusion", "a"]):
        found = fused(ids).logits
    for row, logits in enumerate(wanted):
        torch.testing.assert_close(found[row], logits[row], atol=1e-5, rtol=1e-5)


def test_what_it_fuses_is_not_merged_below_it(fused, snapshot):
    llmad.activate(fused, "b")
    before = snapshot(fused)
    with pytest.raises(llmad.UsageError, match="'fusion' works with 'b'"):
        llmad.merge(fused, "b")
    assert snapshot(fused) == before
