"""Activation: which of a model's adapters act, in which order, on which rows; for good or within a block."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from torch import nn

from llmad.attachment import named, state
from llmad.composition import Names, Stage, acting, by_row, stack, without
from llmad.dice import Dice, rolling
from llmad.errors import UsageError
from llmad.module import AdapterModule
from llmad.site import Site


def activate(model: nn.Module, *names: str) -> nn.Module:
    """Make exactly these adapters active, composed in this order: the first is nearest to the base.

    Args:
        model: the model that has the adapters.
        names: each an adapter, or a sum `a+b` of adapters that act side by side.

    Raises:
        UsageError: no adapter has one of the names, a name stands twice, or an adapter cannot stand beside another.
    """
    state(model).active[:] = _checked(model, stack(names))
    return model


def disabled(model: nn.Module) -> AbstractContextManager[nn.Module]:
    """Within the block the model is its base."""
    return only(model)


def only(model: nn.Module, *names: str) -> AbstractContextManager[nn.Module]:
    """Within the block exactly these adapters act, composed as by `activate`.

    Raises:
        UsageError: as `activate` does.
    """
    return _within(model, _checked(model, stack(names)))


def per_row(model: nn.Module, rows: Sequence[Names]) -> AbstractContextManager[nn.Module]:
    """Within the block each row of a batch has the adapters given for it; the base computes all rows at once.

    Args:
        model: the model that has the adapters.
        rows: for each row an adapter or a sum `a+b`, a list of them for a stack, or None for the base.

    Raises:
        UsageError: no adapter has one of the names, a name stands twice, an adapter cannot stand beside another, or
            one sits at experts, which see the tokens of all rows in an order of their own.
    """
    return _within(model, _by_row(model, rows))


@contextmanager
def taking_turns(model: nn.Module, rows: Sequence[str], dice: Mapping[str, Dice]) -> Iterator[nn.Module]:
    """Within the block each row of a batch has the adapter given for it, which draws random numbers from its own dice.

    Raises:
        UsageError: as `per_row` does.
    """
    with _within(model, _by_row(model, rows)), rolling(dice):
        yield model


def _by_row(model: nn.Module, rows: Sequence[Names]) -> list[Stage]:
    stages = _checked(model, by_row(rows))
    for name in acting(stages):
        for site in named(model, name).modules:
            if site.stack:
                reason = f"adapter {name!r} sits at {site.label}, where tokens of all rows are mixed"
                raise UsageError("not-by-row", reason, "give it all rows, or place it elsewhere")
    return stages


@contextmanager
def _within(model: nn.Module, stages: list[Stage]) -> Iterator[nn.Module]:
    """Other stages for a while; an adapter that is attached meanwhile is active afterwards."""
    own = state(model)
    before, known, outer = list(own.active), set(own.adapters), own.replaced
    own.active[:], own.replaced = stages, True
    try:
        yield model
    finally:
        new = [Stage((name,)) for stage in own.active for name in stage.names if name not in known]
        own.active[:], own.replaced = before + new, outer
        for name in known - own.adapters.keys():
            own.active[:] = without(own.active, name)


def _checked(model: nn.Module, stages: list[Stage]) -> list[Stage]:
    """The stages, where their adapters can act at the same time."""
    for stage in stages:
        modules = {name: named(model, name).modules for name in stage.names}
        if len(stage.names) > 1:
            _check_beside(modules)
    return stages


def _check_beside(modules: dict[str, dict[Site, AdapterModule]]) -> None:
    """Adapters side by side have a sum where they share a place only if each sees the place itself."""
    there: dict[str, dict[str, list[Site]]] = {}  # path, adapter
    for name, own in modules.items():
        for site, module in own.items():
            if module.whole_call:
                reason = f"adapter {name!r} acts on the whole model and cannot stand beside another"
                raise UsageError("not-beside", reason, "stack it instead")
            there.setdefault(site.path, {}).setdefault(name, []).append(site)
    for path, by_name in there.items():
        sites = [site for own in by_name.values() for site in own]
        apart = all(site.rows and not site.before for site in sites)  # roles of a fused linear
        if len(by_name) > 1 and len({site.slot for site in sites}) > 1 and not apart:
            reason = f"{'+'.join(by_name)} sit at different sides or parts of {path}: their updates have no sum"
            raise UsageError("not-beside", reason, "stack them instead")
