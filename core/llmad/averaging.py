"""Averaging: an adapter whose weights are the weighted average of others'.

Chronopoulou et al., 2023 (arXiv 2302.07027), section 3.2, and model soups before it.
"""

from collections.abc import Mapping

import torch
from torch import nn

from llmad.activation import activate
from llmad.attachment import attached, build, mount, plan
from llmad.errors import UsageError


def average(model: nn.Module, weights: Mapping[str, float], name: str = "average") -> nn.Module:
    """Attach the average of adapters of one spec, and make it the only active one.

    It is tensors that are averaged: for a method that multiplies its tensors with one another, such as a low-rank
    update, that is another thing than the average of what the adapters do.

    Args:
        model: the model that has the adapters.
        weights: adapter to its weight; divided by their sum, which must be positive.
        name: the new adapter's name.

    Raises:
        UsageError: no adapter has one of the names, they are not of one spec, or the weights have no positive sum.
    """
    total = sum(weights.values())
    if not 0 < total < float("inf"):
        raise UsageError("bad-weights", f"the weights {dict(weights)} have no positive sum", "give positive weights")
    adapters = {other: attached(model, other) for other in weights}
    first, *others = adapters
    spec = adapters[first].spec
    for other in others:
        if adapters[other].spec != spec:
            raise UsageError("unlike-adapters", f"{first!r} is {spec}, {other!r} is {adapters[other].spec}")
    with torch.random.fork_rng(devices=[]):  # what is drawn is not used
        modules = build(model, spec, plan(model, spec, name))
    with torch.no_grad():
        for site, module in modules.items():
            states = {other: own.modules[site].state_dict() for other, own in adapters.items()}
            for key, tensor in module.state_dict().items():
                tensor.copy_(sum(weights[other] / total * state[key].to(tensor) for other, state in states.items()))
    return activate(mount(model, spec, modules, name), name)
