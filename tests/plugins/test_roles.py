"""Roles mean what they say on every architecture: an adapter at `attn.q` changes the queries alone, and so on.

The oracle is the model's own attention: the operands of its products, seen while it runs. Gates are told from ways up
by what goes into the non-linearity.
"""

from functools import partial

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers.activations import ACT2FN

import llmad
from llmad.match import layout
from llmad.registry import registry
from tests import zoo

KINDS = [kind for kind in zoo.TYPES if kind not in zoo.UNBUILT and kind != "reformer"]
QKV = ("attn.q", "attn.k", "attn.v")
LINEAR = "linear attention multiplies keys with values first"
UNSEEN = {  # kind to the layers whose first two products are not those of queries, keys and values
    "bailing_hybrid": ({0}, LINEAR), "kimi_linear": ({0}, LINEAR), "olmo_hybrid": ({0}, LINEAR),
    "xlstm": ({0, 1}, LINEAR), "prophetnet": ({0, 1}, "attention over n-grams is written as sums"),
    "hy_v4": ({0, 1}, "an indexer multiplies first"), "inkling2_text": ({0, 1}, "relative positions come first"),
    "deepseek_v4": ({1}, "a compressor multiplies first"),
}  # fmt: skip
MADE_TOGETHER = {  # what the architecture itself makes of one linear map
    ("gemma4_unified_text", 1, "attn.k"): "kv",  # the values of its full attention are the keys
    **{("zaya", layer, role): "qk" for layer in (0, 1) for role in ("attn.q", "attn.k")},  # they meet in a convolution
}


class Operands(TorchFunctionMode):
    """The queries, keys and values of the first attention inside a module."""

    def __init__(self, place):
        super().__init__()
        self.inside, self.whole, self.products = False, None, []
        self.hooks = [
            place.register_forward_pre_hook(lambda *_: setattr(self, "inside", True)),
            place.register_forward_hook(lambda *_: setattr(self, "inside", False)),
        ]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if self.inside and name == "scaled_dot_product_attention" and self.whole is None:
            self.whole = [value.clone() for value in args[:3]]
        if self.inside and name in ("matmul", "__matmul__", "bmm", "baddbmm"):
            operands = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
            self.products.append([value.clone() for value in operands[-2:]])
        return func(*args, **kwargs)

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()
        return super().__exit__(*error)

    @property
    def found(self):
        return self.whole or [*self.products[0], self.products[1][1]]


@torch.no_grad()
def qkv(model, path, ids):
    with Operands(model.get_submodule(path)) as seen:
        model(input_ids=ids)
    return seen.found


def changed(model, role, layer, look):
    """Which of the things looked at an adapter at this role changes."""
    before = look()
    llmad.attach(model, f"lora[sites={role},layers={layer}]")
    with torch.no_grad():
        for _, weight in llmad.parameters(model):
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    after = look()
    llmad.detach(model)
    return [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_queries_keys_and_values_are_changed_alone(kind, ids):
    model = zoo.build(kind).requires_grad_(False)
    there = layout(model)
    for layer, block in enumerate(there.blocks):
        own = {site.role: site.path for site in reversed(there.sites) if site.layer == layer}
        for role in QKV:
            if role in own and layer not in UNSEEN.get(kind, ((), ""))[0]:
                found = changed(model, role, layer, partial(qkv, model, own.get("attn", block), ids))
                wanted = MADE_TOGETHER.get((kind, layer, role), role[-1])
                assert found == [name in wanted for name in "qkv"], (layer, role)


def activation(model, path):
    """The module of the non-linearity in an MLP."""
    kinds = tuple({type(function) for function in map(ACT2FN.__getitem__, ("silu", "gelu", "relu", "gelu_new"))})
    found = [module for module in model.get_submodule(path).modules() if isinstance(module, kinds)]
    return found[0] if found else None


@torch.no_grad()
def activated(model, module, ids):
    seen = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    model(input_ids=ids)
    hook.remove()
    return [seen[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_passes_the_non_linearity_is_the_gate_alone(kind, ids):
    model = zoo.build(kind).requires_grad_(False)
    there = layout(model)
    for layer in range(len(there.blocks)):
        own = {site.role: site.path for site in reversed(there.sites) if site.layer == layer}
        module = activation(model, own["mlp"]) if {"mlp", "mlp.gate", "mlp.up"} <= own.keys() else None
        if module is not None and not any(".experts" in path for path in own.values()):
            look = partial(activated, model, module, ids)
            assert changed(model, "mlp.gate", layer, look) == [True], layer
            assert changed(model, "mlp.up", layer, look) == [False], layer


def test_enough_kinds_are_looked_at():
    described = {kind for backbone in registry().backbones() for kind in backbone.model_types}
    looked_at = set(KINDS) - set(UNSEEN)
    assert len(looked_at & described) >= 30
    assert len(looked_at - described) >= 20
