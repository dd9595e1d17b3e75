import pytest
import torch

import llmad
from llmad import AdapterModule, AdapterSpec, ModelError, Sites, UsageError
from llmad.attachment import state


class Scale(AdapterModule):
    def __init__(self, add, times):
        super().__init__()
        self.add, self.times = add, times
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, base, x):
        return (base(x) + self.add + self.weight) * self.times


class Affine(AdapterSpec):
    """Adds, then multiplies: two of them do not commute."""

    name = "affine"
    sites: Sites = Sites("head")
    add: float = 0.0
    times: float = 1.0

    def build(self, site):
        return Scale(self.add, self.times)


class Breaks(Affine):
    """Breaks at the third site."""

    name = "breaks"
    sites: Sites = Sites("attn.*")

    def build(self, site):
        if site.layer == 0 and site.role == "attn.v":
            raise RuntimeError("at the third site")
        return super().build(site)


class NoModule(Affine):
    """Builds something else."""

    name = "no-module"

    def build(self, site):
        return torch.nn.Linear(2, 2)


ADD = Affine(add=1.0)
DOUBLE = Affine(times=2.0)

REFUSED = [
    ("nothing", {}), ("lora[r=0]", {}), ("lora[sites=attn.qq]", {}), ("lora[sites=attn.q+mlp.gate]", {}),
    ("lora[layers=7]", {}), ("series[sites=embed]", {}), ("lora[", {}), ("lora", {"name": "no name"}),
    ("lora", {"name": ""}), ("lora", {"name": "a.b"}), ("lora", {"name": "keys"}), ("lora", {"name": "train"}),
    (NoModule(), {}),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "options"), REFUSED)
def test_a_refused_adapter_changes_nothing(tiny, snapshot, spec, options):
    model = tiny("opt")
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    with pytest.raises(llmad.LlmadError):
        llmad.attach(model, spec, **options)
    assert snapshot(model) == before


@pytest.mark.parametrize(("spec", "options"), [*REFUSED, ("lora", {"name": "first"})])
def test_a_refused_second_adapter_changes_nothing(tiny, snapshot, spec, options):
    model = llmad.attach(tiny("opt"), "series", "first")
    before, active = snapshot(model), list(state(model).active)
    with pytest.raises(llmad.LlmadError):
        llmad.attach(model, spec, **options)
    assert snapshot(model) == before
    assert state(model).active == active


def test_a_plugin_that_breaks_at_the_third_site_changes_nothing(model, snapshot):
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="third site"):
        llmad.attach(model, Breaks())
    assert snapshot(model) == before


def test_what_is_no_adapter_module_is_told(llama):
    with pytest.raises(ModelError) as caught:
        llmad.attach(llama, NoModule())
    assert caught.value.code == "bad-plugin"
    assert "no-module built Linear" in str(caught.value)


@pytest.mark.parametrize("name", ["keys", "train", "forward", "double", "a.b", "", "ä"])
def test_a_name_that_a_module_cannot_have_is_refused(llama, name):
    with pytest.raises(UsageError) as caught:
        llmad.attach(llama, "lora", name)
    assert caught.value.code == "bad-name"


def test_flags_come_back_as_they_were(model):
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    llmad.attach(model, "lora", "a")
    llmad.attach(model, "series", "b")
    llmad.detach(model, "a")
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".adapters." not in n)
    llmad.detach(model, "b")
    assert [parameter.requires_grad for parameter in model.parameters()] == before


def test_adapters_compose_in_the_order_of_attaching(llama, logits):
    plain = logits(llama)
    llmad.attach(llama, ADD, "add")
    llmad.attach(llama, DOUBLE, "twice")
    assert torch.equal(logits(llama), (plain + 1) * 2)


def test_a_name_that_is_not_attached_names_the_nearest(llama):
    llmad.attach(llama, ADD, "add")
    with pytest.raises(UsageError) as caught:
        llmad.detach(llama, "ad")
    assert caught.value.hint == "did you mean add?"


@pytest.mark.parametrize("first", ["a", "b"])
def test_one_of_several_can_go(model, logits, perturb, first):
    specs = {"a": "lora[sites=attn.q+attn.v]", "b": "series[sites=attn.q+attn.o]"}
    alone = {}
    for name, spec in specs.items():
        llmad.attach(model, spec, name)
        perturb(model, name)
        llmad.activate(model, name)
        alone[name] = logits(model)
    llmad.activate(model, "a", "b")
    (other,) = specs.keys() - {first}
    llmad.detach(model, first)
    assert torch.equal(logits(model), alone[other])


def test_the_same_spec_may_be_attached_twice(llama, logits):
    plain = logits(llama)
    llmad.attach(llama, ADD, "one")
    llmad.attach(llama, ADD, "two")
    assert torch.allclose(logits(llama), plain + 2)


def test_attaching_again_under_a_name_gives_a_fresh_adapter(llama, logits, perturb):
    plain = logits(llama)
    llmad.attach(llama, "lora")
    perturb(llama)
    llmad.detach(llama)
    llmad.attach(llama, "lora")
    assert torch.equal(logits(llama), plain)


def test_parameters_name_the_site(tiny):
    model = llmad.attach(tiny("bloom"), "lora[layers=0]")
    path = "transformer.h.0.self_attention.query_key_value"
    assert [name for name, _ in llmad.parameters(model)] == [
        f"{path}[attn.q]:down.weight", f"{path}[attn.q]:up.weight",
        f"{path}[attn.v]:down.weight", f"{path}[attn.v]:up.weight",
    ]  # fmt: skip


def test_gradient_checkpointing_gives_the_same_gradients(model, ids):
    llmad.attach(model, "series[init=paper]").train()
    model(ids, labels=ids).loss.backward()
    plain = [parameter.grad.clone() for _, parameter in llmad.parameters(model)]
    model.zero_grad()
    # transformers renamed it after 5.5; the old name warns in the new versions
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model(ids, labels=ids, use_cache=False).loss.backward()
    again = [parameter.grad for _, parameter in llmad.parameters(model)]
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["lora[sites=linear]", "series[sites=attn.o]", "parallel"])
def test_it_compiles_without_a_graph_break(llama, ids, logits, perturb, spec):
    llmad.attach(llama, spec)
    perturb(llama)
    compiled = torch.compile(llama, fullgraph=True, backend="eager")
    torch.testing.assert_close(logits(compiled), logits(llama))
    with llmad.disabled(llama):
        torch.testing.assert_close(logits(compiled), logits(llama))


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_an_adapted_linear_compiles_without_a_graph_break(llama, perturb, method):
    llmad.attach(llama, f"{method}[layers=0,sites=attn.q]")
    perturb(llama)
    linear, x = llama.model.layers[0].self_attn.q_proj, torch.randn(2, 32)
    compiled = torch.compile(linear, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), linear(x))
