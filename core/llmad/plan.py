"""Plan: what a spec would do to a model, in numbers, without doing it."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from llmad.attachment import attached, build, parameters
from llmad.attachment import plan as checked_sites
from llmad.match import sites
from llmad.quantization import sizes
from llmad.site import Site
from llmad.spec import AdapterSpec


@dataclass(frozen=True)
class Plan:
    """Sites, and parameters: those that would be trained, and all, the adapter's included."""

    sites: tuple[Site, ...]
    trainable_parameters: int
    total_parameters: int

    @property
    def share(self) -> float:
        """Trained parameters among all."""
        return self.trainable_parameters / self.total_parameters

    @property
    def roles(self) -> str:
        """The roles with how many sites each has, such as `attn.q x 32`."""
        counts = Counter(site.role + ("@before" if site.before else "") for site in self.sites)
        return ", ".join(f"{role} x {count}" for role, count in counts.items())

    def describe(self) -> dict[str, Any]:
        """The plan as plain data, for JSON."""
        return {
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "sites": [site.describe() for site in self.sites],
        }


def plan(model: nn.Module, spec: AdapterSpec | None) -> Plan:
    """What attaching a spec to a plain model would do; without a spec, every site and nothing trained.

    Raises:
        UsageError, ModelError: as `attach` would.
    """
    base = _total(model)
    if spec is None:
        return Plan(tuple(sites(model)), 0, base)
    chosen = checked_sites(model, spec, "default")
    own = _count(list(build(model, spec, chosen).values()))
    return Plan(tuple(chosen), own, base + own)


def summary(model: nn.Module, name: str = "default") -> Plan:
    """The same of an adapter that is attached."""
    own = sum(parameter.numel() for _, parameter in parameters(model, name))
    return Plan(tuple(attached(model, name).modules), own, _total(model))


def _total(model: nn.Module) -> int:
    """All weights of a model; a quantised one counts as the plain one that it stands for."""
    return sum(math.prod(shape) for _, shape, _ in sizes(model))


def _count(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for parameter in {p for module in modules for p in module.parameters()})
