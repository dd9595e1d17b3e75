"""Under torch.compile every method is one graph, and computes what it computes eagerly: outputs and gradients.

Places are compiled by themselves, and what virtual tokens do around the stack; the slow tests compile whole models.
"""

from types import MethodType

import pytest
import torch

import llmad
from llmad.registry import registry

PLACES = {  # with dropout, where a method has it
    "lora": "lora[dropout=0.2]",
    "dora": "dora[dropout=0.2]",
    "ia3": "ia3",
    "series": "series[dropout=0.2]",
    "parallel": "parallel[dropout=0.2]",
    "compacter": "compacter[dropout=0.2]",
    "invertible": "invertible",
    "loreft": "loreft[sites=mlp,dropout=0.2]",
    "fusion": "fusion",
}
VIRTUAL = {
    "prompt": ["prompt[num_virtual_tokens=3]"],
    "prefix": ["prefix[num_virtual_tokens=3]", "prefix[num_virtual_tokens=3,prefix_projection=false]"],
    "p-tuning": ["p-tuning[num_virtual_tokens=3]", "p-tuning[num_virtual_tokens=3,encoder=lstm]"],
}
EVERY = [*PLACES.values(), *(spec for specs in VIRTUAL.values() for spec in specs)]
DROPPING = [spec for spec in PLACES.values() if "dropout" in spec]


@pytest.fixture(autouse=True)
def _anew():
    torch.compiler.reset()


def test_every_method_is_asked():
    assert {method.name for method in registry().methods() if method.__module__.startswith("llmad_plugins")} == {
        *PLACES,
        *VIRTUAL,
    }


@pytest.fixture
def adapted(tiny, perturb):
    """Make a model of one block with an adapter that does something; its adapter is called `own`."""

    def adapted(spec, architecture="llama"):
        model = tiny(architecture, layers=1)
        for name in "ab" if spec == "fusion" else "":
            llmad.attach(model, "series", name)
            perturb(model, name)
        llmad.attach(model, spec, "own")
        perturb(model, "own")
        return model

    return adapted


def hosts(model):
    """The adapted places, each with the shape of a fitting input."""
    for name, module in model.named_modules():
        if hasattr(module, "adapters"):
            yield name, module, getattr(module, "in_features", 32)


def given(module, width, tokens=5):
    generator = torch.Generator().manual_seed(tokens)
    if isinstance(module, torch.nn.Embedding):
        return torch.randint(module.num_embeddings, (2, tokens), generator=generator)
    return torch.randn(2, tokens, width, generator=generator).requires_grad_()


def asked(call, model, *inputs, **named):
    """What a call returns, and the gradients of the input and of all that is trained."""
    leaves = [x for x in inputs if x.requires_grad] + [p for p in model.parameters() if p.requires_grad]
    out = call(*inputs, **named)
    if not out.requires_grad:
        return [out.detach()]
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves, allow_unused=True)]


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    scale = max(float(one.abs().max()) for one in wanted if one is not None)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("spec", PLACES.values())
def test_a_place_is_one_graph_in_training_and_evaluation(adapted, spec):
    model = adapted(spec)
    for _, module, width in hosts(model):
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        for training in (False, True):
            model.train(training and spec not in DROPPING)
            x = given(module, width, 6 if training else 5)
            with torch.set_grad_enabled(training):
                assert_same(asked(compiled, model, x), asked(module, model, x))


@pytest.mark.parametrize("spec", DROPPING)
def test_a_place_with_dropout_is_one_graph(adapted, spec):
    model = adapted(spec)
    _, module, width = next(iter(hosts(model)))
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    x = given(module, width, 1).detach()[:1].expand(1, 20000, -1)
    plain = module(x[:, :1]).detach()
    torch.manual_seed(2)
    model.train()
    out = asked(compiled, model, x)
    found = out[0].detach()
    assert all(one is None or one.isfinite().all() for one in out)
    assert found.std(1).max() > 1e-4  # some is dropped
    error = (found.mean(1) - plain[:, 0]).abs() / (found.std(1) + 1e-6)
    assert error.max() < 6 / 20000**0.5  # and no more than should be


def around(model):
    """What the adapter makes of the stack's own forward: the hidden states of a text."""
    stack = model.base_model
    (adapter,) = stack.adapters["own"].values()
    own = MethodType(type(stack).__mro__[2].forward, stack)

    def states(ids, **more):
        return adapter(own, rows=None, input_ids=ids, use_cache=False, **more).last_hidden_state

    return states


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("spec", [VIRTUAL["prompt"][0], VIRTUAL["prefix"][0]])
def test_virtual_tokens_are_one_graph_with_the_stack(adapted, ids, spec, training):
    model = adapted(spec).train(training)
    states = around(model)
    compiled = torch.compile(states, fullgraph=True, backend="eager")
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.set_grad_enabled(training):
        for length in (7, 6) if training and spec == VIRTUAL["prompt"][0] else (7,):
            call = {"attention_mask": mask[:, :length]}
            wanted = asked(states, model, ids[:, :length], **call)
            assert_same(asked(compiled, model, ids[:, :length], **call), wanted)


@torch.no_grad()
def test_several_texts_in_one_row_stop_what_is_compiled(adapted, ids):
    states = around(adapted(VIRTUAL["prompt"][0]))
    compiled = torch.compile(states, fullgraph=True, backend="eager")
    counted = torch.arange(7)[None]
    torch.testing.assert_close(compiled(ids, position_ids=counted), states(ids, position_ids=counted))
    with pytest.raises(RuntimeError, match="several texts in one row"):
        compiled(ids, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2]]))


@pytest.mark.parametrize("options", ["mlp", "lstm", "lstm,encoder_dropout=0.2"])
def test_what_makes_virtual_tokens_is_one_graph(adapted, options):
    model = adapted(f"p-tuning[num_virtual_tokens=3,encoder={options}]").train()
    (adapter,) = model.base_model.adapters["own"].values()
    compiled = torch.compile(lambda: adapter.virtual(), fullgraph=True, backend="eager")
    found = asked(compiled, model)
    assert all(one.isfinite().all() and one.abs().max() > 0 for one in found)
    model.eval()
    assert_same(asked(compiled, model), asked(adapter.virtual, model))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt", "gptj"])  # BLOOM itself cannot be traced
@pytest.mark.parametrize("spec", EVERY)
def test_a_whole_model_is_one_graph(adapted, architecture, ids, spec):
    model = adapted(spec.replace("sites=mlp", "sites=block"), architecture)  # OPT has no module for its MLP
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for training in (False, True):
        model.train(training and spec not in DROPPING)
        for length in (7, 6):
            with torch.set_grad_enabled(training):
                found, wanted = (
                    asked(lambda x, call=call: call(x, use_cache=False).logits, model, ids[:, :length])
                    for call in (compiled, model)
                )
            assert_same(found, wanted)
