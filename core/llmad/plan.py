"""Plan: what a spec would do to a model, in numbers, without doing it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from llmad.attachment import attached, build, parameters, state
from llmad.attachment import plan as checked_sites
from llmad.layout import Layout
from llmad.match import layout
from llmad.quantization import sizes
from llmad.site import MODULE_ROLES, Site
from llmad.spec import AdapterSpec


@dataclass(frozen=True)
class Plan:
    """Sites, and parameters: those that would be trained, and all, the adapter's included.

    `places` and `left` say for each role how many places are adapted and how many are not; `roleless` counts the
    linear maps and other large weights that have no role, routers for one.
    """

    sites: tuple[Site, ...]
    trainable_parameters: int
    total_parameters: int
    places: dict[str, int]
    left: dict[str, int]
    roleless: int

    @property
    def share(self) -> float:
        """Trained parameters among all."""
        return self.trainable_parameters / self.total_parameters

    @property
    def roles(self) -> str:
        """The adapted roles with how many places each has, such as `attn.q x 32`."""
        return _in_words(self.places)

    @property
    def rest(self) -> str:
        """The same of the linear maps that are not adapted, and how many things have no role."""
        roleless = f"{self.roleless:,} without a role" if self.roleless else ""
        return ", ".join(filter(None, (_in_words(self.left), roleless)))

    def describe(self) -> dict[str, Any]:
        """The plan as plain data, for JSON."""
        return {
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "adapted": self.places,
            "not_adapted": self.left,
            "without_role": self.roleless,
            "sites": [site.describe() for site in self.sites],
        }


def plan(model: nn.Module, spec: AdapterSpec | None) -> Plan:
    """What attaching a spec to a plain model would do; without a spec, every site and nothing trained.

    Raises:
        UsageError, ModelError: as `attach` would.
    """
    base, there = _total(model), layout(model)
    if spec is None:
        return _plan(there.sites, 0, base, there)
    chosen = checked_sites(model, spec, "default")
    own = _count(list(build(model, spec, chosen).values()))
    return _plan(chosen, own, base + own, there)


def summary(model: nn.Module, name: str = "default") -> Plan:
    """The same of an adapter that is attached; `default` is built on all others, which count as the model's."""
    own = _own(model, name)
    others = sum(_own(model, other) for other in state(model).adapters if name not in ("default", other))
    return _plan(list(attached(model, name).modules), own, _total(model) - others, layout(model))


def _own(model: nn.Module, name: str) -> int:
    return sum(parameter.numel() for _, parameter in parameters(model, name))


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{role} x {count:,}" for role, count in counts.items())


def _plan(sites: Sequence[Site], own: int, total: int, there: Layout) -> Plan:
    taken = {(site.path, site.role, site.stack) for site in sites}
    linear = [site for site in there.sites if site.role not in MODULE_ROLES]
    left = [site.role for site in linear if (site.path, site.role, site.stack) not in taken]
    names = [site.role + ("@before" if site.before else "") for site in sites]
    roleless = sum(not finding.role for finding in there.findings)
    return Plan(tuple(sites), own, total, _tally(names), _tally(left), roleless)


def _tally(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _total(model: nn.Module) -> int:
    """All weights of a model; a quantised one counts as the plain one that it stands for."""
    return sum(math.prod(shape) for _, shape, _ in sizes(model))


def _count(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for parameter in {p for module in modules for p in module.parameters()})
