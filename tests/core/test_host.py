"""The host's way of calling: where the adapter stands, what it sees, and what goes on beside it."""

import copy
import inspect

import accelerate
import pytest
import torch
from torch import nn

import llmad
from llmad import AdapterModule, AdapterSpec, ModelError, Sites
from llmad.host import Host
from llmad.turns import turns
from tests import zoo


class Seen(AdapterModule):
    """Passes everything on, and remembers what it saw."""

    def forward(self, base, x):
        self.x, self.out = x, base(x)
        return self.out


class Look(AdapterSpec):
    """Looks at what passes."""

    name = "look"
    sites: Sites = Sites("attn.q")

    def build(self, site):
        return Seen()


class Silent(Look):
    """Does without the base."""

    name = "silent"

    def build(self, site):
        module = Deaf()
        module.width = site.out_features
        return module


class Deaf(AdapterModule):
    def forward(self, base, x):
        return x.new_zeros(*x.shape[:-1], self.width)


def seen(model, role="attn.q", name="default"):
    """The module in the first layer."""
    from llmad.attachment import attached

    return next(module for site, module in attached(model, name).modules.items() if site.layer in (0, None))


def attach(model, sites, spec=Look):
    return llmad.attach(model, spec(sites=Sites.parse(sites)))


def inner_output(model, path, ids):
    """What the module at `path` gives to the model."""
    found = {}
    hook = model.get_submodule(path).register_forward_hook(lambda module, inputs, out: found.update(out=out))
    with torch.no_grad():
        model(ids)
    hook.remove()
    return found["out"]


@pytest.mark.parametrize("role", ["attn.q", "attn.k", "attn.v"])
def test_a_role_of_a_fused_linear_changes_its_own_rows_only(tiny, ids, perturb, role):
    model = tiny("bloom")
    path = "transformer.h.0.self_attention.query_key_value"
    before = inner_output(model, path, ids)
    llmad.attach(model, f"lora[sites={role},layers=0]")
    perturb(model)
    after = inner_output(model, path, ids)
    (site,) = [site for site in llmad.sites(model) if site.role == role and site.layer == 0]
    rest = sorted(set(range(96)) - set(site.rows.index()))
    assert torch.equal(after[..., rest], before[..., rest])
    assert (after[..., site.rows.index()] != before[..., site.rows.index()]).all()


def test_before_a_role_of_a_fused_linear_changes_its_own_rows_only(tiny, ids, perturb):
    model = tiny("bloom")
    path = "transformer.h.0.self_attention.query_key_value"
    before = inner_output(model, path, ids)
    llmad.attach(model, "series[sites=attn.k@before,layers=0]")
    perturb(model)
    after = inner_output(model, path, ids)
    (site,) = [site for site in llmad.sites(model) if site.role == "attn.k" and site.layer == 0]
    rest = sorted(set(range(96)) - set(site.rows.index()))
    assert torch.equal(after[..., rest], before[..., rest])
    assert not torch.equal(after, before)


@pytest.mark.parametrize("role", ["attn", "mlp"])
def test_the_adapter_does_not_see_a_residual_that_its_place_adds(tiny, ids, role):
    model, part = tiny("bloom"), {"attn": "self_attention", "mlp": "mlp"}[role]
    last = {"attn": "dense", "mlp": "dense_4h_to_h"}[role]
    alone = inner_output(model, f"transformer.h.0.{part}.{last}", ids)
    attach(model, role)
    whole = inner_output(model, f"transformer.h.0.{part}", ids)
    assert torch.equal(seen(model).out, alone)
    assert not torch.equal(whole[0] if isinstance(whole, tuple) else whole, alone)


def test_the_rest_of_a_tuple_goes_on_unchanged(model, ids):
    with torch.no_grad():
        plain = model(ids, output_attentions=True).attentions
        attach(model, "attn")
        after = model(ids, output_attentions=True).attentions
    assert plain is not None
    assert all(torch.equal(a, b) for a, b in zip(plain or (), after or (), strict=True) if a is not None)


@pytest.mark.parametrize("role", ["attn.v", "attn", "mlp"])
def test_an_adapter_may_do_without_the_base(tiny, ids, logits, role):
    model = tiny("bloom")
    before = logits(model)
    attach(model, role, Silent)
    assert logits(model).isfinite().all()
    assert not torch.equal(logits(model), before)
    path = {"attn.v": "self_attention.query_key_value", "attn": "self_attention", "mlp": "mlp"}[role]
    assert inner_output(model, f"transformer.h.0.{path}", ids) is not None


def test_several_roles_of_a_fused_linear_share_one_call_of_it(tiny, ids):
    model = tiny("bloom")
    linear = model.transformer.h[0].self_attention.query_key_value
    calls = []
    plain = nn.functional.linear
    llmad.attach(model, "lora[sites=attn.q+attn.k+attn.v,layers=0]")

    def count(x, weight, bias=None):
        calls.append(weight is linear.weight)
        return plain(x, weight, bias)

    nn.functional.linear = count
    try:
        model(ids)
    finally:
        nn.functional.linear = plain
    assert sum(calls) == 1


def test_the_adapter_sees_hidden_states_however_they_are_passed(model, ids):
    attach(model, "attn")
    model(ids)
    assert seen(model).x.shape == (2, 7, 32)


def test_a_host_keeps_the_names_and_the_signature_of_its_class(llama):
    host = llama.model.layers[0].self_attn
    before = str(type(host)), type(host).__name__, inspect.signature(host.forward)
    attach(llama, "attn")
    assert isinstance(host, Host)
    assert (str(type(host)), type(host).__name__, inspect.signature(host.forward)) == before


def test_modules_of_one_class_share_one_host_class(llama):
    attach(llama, "attn.q+attn.k")
    classes = {type(module) for module in llama.modules() if isinstance(module, Host)}
    assert len(classes) == 1


def test_a_forward_that_was_replaced_on_the_instance_is_refused(llama, snapshot):
    linear = llama.model.layers[2].self_attn.q_proj
    linear.forward = lambda x: x
    before = snapshot(llama)
    with pytest.raises(ModelError) as caught:
        llmad.attach(llama, "lora")
    assert caught.value.code == "patched-forward"
    assert "layers.2.self_attn.q_proj" in str(caught.value)
    assert snapshot(llama) == before


def test_a_replaced_forward_below_an_accelerate_hook_is_refused_too(llama):
    linear = llama.model.layers[2].self_attn.q_proj
    linear.forward = lambda x: nn.functional.linear(x, linear.weight)
    accelerate.hooks.add_hook_to_module(linear, accelerate.hooks.ModelHook())
    with pytest.raises(ModelError, match="replaced on the instance"):
        llmad.attach(llama, "lora")


HOOKED = {
    "dispatch": lambda model: accelerate.dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True),
    "offload": lambda model: accelerate.cpu_offload(model, torch.device("cpu")),
}


@pytest.mark.parametrize("method", ["lora", "series[sites=attn]", "prompt[num_virtual_tokens=2]"])
@pytest.mark.parametrize("hook", HOOKED)
def test_an_adapter_takes_effect_below_accelerates_hooks(tiny, logits, perturb, hook, method):
    model = tiny("llama")
    before = logits(model)
    twin = llmad.attach(tiny("llama"), method)
    HOOKED[hook](model)
    assert torch.equal(logits(model), before)
    llmad.attach(model, method)
    if "prompt" not in method:
        assert torch.equal(logits(model), before)
    for (_, own), (_, other) in zip(llmad.parameters(model), llmad.parameters(twin), strict=True):
        own.data.copy_(other.data)
    for both in (model, twin):
        perturb(both)
    assert torch.equal(logits(model), logits(twin))
    assert not torch.equal(logits(model), before)
    llmad.detach(model)
    assert torch.equal(logits(model), before)


def test_a_hook_that_comes_after_the_adapter_keeps_it(llama, logits, perturb):
    llmad.attach(llama, "lora")
    perturb(llama)
    before = logits(llama)
    HOOKED["dispatch"](llama)
    assert torch.equal(logits(llama), before)
    accelerate.hooks.remove_hook_from_submodules(llama)
    assert torch.equal(logits(llama), before)


@pytest.mark.parametrize("spec", ["series[sites=block]", "series[sites=attn]", "lora", "prompt"])
def test_hidden_states_and_attentions_can_still_be_asked_for(model, ids, spec):
    model.set_attn_implementation("eager")
    llmad.attach(model, spec)
    out = model(ids, output_hidden_states=True, output_attentions=True)
    assert (len(out.hidden_states), len(out.attentions)) == (4, 3)


class Asker(llmad.AdapterModule):
    """Asks its place about something else than what came in."""

    def forward(self, base, x):
        return base(2 * x)


class Asking(llmad.AdapterSpec):
    """Asks."""

    name = "asking"
    sites: llmad.Sites = llmad.Sites("attn.q")

    def build(self, site):
        return Asker()


def test_an_adapter_that_asks_about_something_else_leaves_the_other_roles_alone(tiny):
    model = tiny("gpt2")
    place, x = model.transformer.h[0].attn.c_attn, torch.randn(1, 3, 32)
    before = place(x)
    llmad.attach(model, Asking())
    q, rest = place(x).split((32, 64), dim=-1)
    assert torch.equal(rest, before[..., 32:])
    assert not torch.equal(q, before[..., :32])


def test_what_a_call_goes_through_is_made_once_and_anew_where_something_changed(tiny, ids, perturb, monkeypatch):
    model, made = tiny("llama"), []
    monkeypatch.setattr("llmad.host.turns", lambda every: (made.append(1), turns(every))[1])
    base = model(ids).logits
    llmad.attach(model, "lora[sites=attn.q,layers=0]")
    perturb(model)
    adapted = model(ids).logits
    assert torch.equal(model(ids).logits, adapted)
    assert len(made) == 1
    with llmad.disabled(model):
        assert torch.equal(model(ids).logits, base)
    llmad.attach(model, "series[sites=attn.q,layers=0]", "other")
    perturb(model, "other")
    assert not torch.equal(model(ids).logits, adapted)
    llmad.activate(model, "default")
    assert torch.equal(model(ids).logits, adapted)
    copied = copy.deepcopy(model)
    llmad.detach(model, "default")
    assert torch.equal(model(ids).logits, base)
    assert torch.equal(copied(ids).logits, adapted)


@pytest.mark.parametrize("site", ["block", "attn"])
def test_a_part_that_returns_a_list_is_wrapped_like_one_that_returns_a_tuple(site, logits, perturb):
    model = zoo.build("openai-gpt")
    before = logits(model)
    llmad.attach(model, f"series[sites={site}]")
    assert torch.equal(logits(model), before)
    perturb(model)
    changed = logits(model)
    assert not torch.allclose(changed, before)
    llmad.attach(model, f"series[sites={site}]", "other")
    perturb(model, "other")
    llmad.activate(model, "default")
    rows = before.shape[0]
    with llmad.per_row(model, ["default", *[None] * (rows - 1)]):
        mixed = logits(model)
    torch.testing.assert_close(mixed[:1], changed[:1])
    torch.testing.assert_close(mixed[1:], before[1:])
