"""Adapters at single experts: the same in every form of the mixture's product, against a plain loop over experts."""

import pytest
import torch
from torch import nn

import llmad
from llmad.attachment import attached
from llmad.experts import routed
from tests import zoo

FORMS = ("eager", "grouped_mm", "batched_mm")
KINDS = ("mixtral", "gpt_oss", "aria_text", "llama4_text", "jetmoe", "nemotron_h", "inkling_text", "longcat_flash")


@pytest.fixture
def mixture():
    return zoo.build("mixtral").requires_grad_(False)


def close(found, wanted, tolerance=1e-5):
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("spec", ["lora", "dora", "ia3", "series[bottleneck=4]", "parallel[bottleneck=4]"])
def test_every_form_of_the_product_gives_the_same(mixture, logits, perturb, spec):
    name, _, options = spec.rstrip("]").partition("[")
    llmad.attach(mixture, f"{name}[{options + ',' * bool(options)}sites=expert.*]")
    perturb(mixture)
    found = {}
    for form in FORMS:
        mixture.set_experts_implementation(form)
        found[form] = logits(mixture)
        with llmad.disabled(mixture):
            assert not torch.allclose(logits(mixture), found[form], atol=1e-3)
    close(found["grouped_mm"], found["eager"])
    close(found["batched_mm"], found["eager"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sites", ["expert.*", "expert.down@before", "expert.gate@before"])
def test_a_fresh_adapter_changes_no_bit(mixture, logits, form, sites):
    mixture.set_experts_implementation(form)
    before, after = logits(mixture), logits(llmad.attach(mixture, f"series[sites={sites}]"))
    if form == "batched_mm" and "@before" in sites:  # asked for another input, an expert computes it by itself
        close(after, before)
    else:
        assert torch.equal(after, before)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_gives_what_the_adapter_did(kind, logits, perturb):
    model = zoo.build(kind).requires_grad_(False)
    before = logits(model)
    llmad.attach(model, "lora[r=2,sites=expert.*]")
    perturb(model)
    wanted = logits(model)
    assert not torch.allclose(wanted, before, atol=1e-3)
    close(logits(llmad.merge(model)), wanted, 1e-4)


def test_each_expert_is_a_series_of_its_own(mixture, perturb):
    """Against the mixture's forward written out for one token at a time."""
    llmad.attach(mixture, "series[bottleneck=4,sites=expert.down,layers=0]")
    perturb(mixture)
    experts = mixture.model.layers[0].mlp.experts
    x, choice = torch.randn(5, 32), torch.tensor([[0, 1], [2, 3], [1, 3], [0, 2], [2, 1]])
    share = torch.rand(5, 2)
    own = {site.stack.expert: module for site, module in modules(mixture).items()}
    wanted = torch.zeros(5, 32)
    for token in range(5):
        for place, expert in enumerate(choice[token].tolist()):
            gate, up = (experts.gate_up_proj[expert] @ x[token]).chunk(2)
            h = experts.down_proj[expert] @ (experts.act_fn(gate) * up)
            wanted[token] += share[token, place] * (h + own[expert].through(h))
    close(experts(x, choice, share), wanted)


def modules(model):
    return attached(model, "default").modules


def test_only_experts_with_tokens_learn(mixture, perturb):
    llmad.attach(mixture, "lora[sites=expert.up,layers=0]")
    perturb(mixture)
    experts = mixture.model.layers[0].mlp.experts
    experts(torch.randn(2, 32), torch.tensor([[0, 2], [2, 0]]), torch.rand(2, 2)).square().sum().backward()
    gradients = {site.stack.expert: module.up.weight.grad for site, module in modules(mixture).items()}
    learning = {expert for expert, gradient in gradients.items() if gradient is not None and gradient.any()}
    assert learning == {0, 2}


def test_each_expert_has_its_files(mixture, logits, perturb, tmp_path):
    llmad.attach(mixture, "lora[sites=expert.*+attn.q]")
    perturb(mixture)
    llmad.save(mixture, tmp_path / "adapter")
    other = zoo.build("mixtral").requires_grad_(False)
    llmad.load(other, tmp_path / "adapter")
    assert torch.equal(logits(other), logits(mixture))


def test_rows_of_a_batch_cannot_have_experts_of_their_own(mixture):
    llmad.attach(mixture, "lora[sites=expert.up]")
    with pytest.raises(llmad.UsageError, match=r"sits at .*experts\.gate_up_proj\.0\[expert\.up\], where tokens"):
        llmad.per_row(mixture, ["default", None])


class Summed(nn.Module):
    """Experts that are used in a form nobody knows."""

    def __init__(self):
        super().__init__()
        self.up_proj = nn.Parameter(torch.randn(4, 8, 8))

    def forward(self, x):
        return torch.einsum("ti,eoi->to", x, self.up_proj)


def test_an_unknown_form_is_no_silence():
    module = Summed()
    call = routed(module, module.forward, {("up_proj", 0): lambda call: call})
    with pytest.raises(llmad.ModelError, match="Summed does not multiply with up_proj in a known form"):
        call(torch.randn(2, 8))
