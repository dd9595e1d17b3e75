"""Described: the layout of a model that a backbone describes."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import nn

from llmad.backbone import Backbone, Fused, Place, Stacked
from llmad.layout import Finding, Layout, features, is_linear, width_of, wrong_class
from llmad.site import MODULE_ROLES, Site, Stack


def described(model: nn.Module, rules: Backbone) -> Layout:
    """The layout by the rules of a backbone.

    Raises:
        ModelError: the model has no blocks where the rules say.
    """
    modules = dict(model.named_modules())
    if rules.blocks not in modules:
        raise wrong_class(model, rules)
    blocks = [f"{rules.blocks}.{number}" for number in range(len(cast(nn.ModuleList, modules[rules.blocks])))]
    width = width_of(model, modules[rules.embed])
    found = list(outer_sites(modules, rules.model, rules.embed, rules.head, width))
    for layer, block in enumerate(blocks):
        found += _block_sites(rules, layer, block, modules, width, cast(Any, model).config)
    why = f"backbone {rules.name} says so"
    return Layout(
        rules.name,
        tuple(blocks),
        tuple(found),
        tuple(Finding(site.label, site.role, "described", why) for site in found),
    )


def outer_sites(modules: Mapping[str, nn.Module], stack: str, embed: str, head: str, width: int) -> Iterator[Site]:
    """The sites outside the blocks, of those paths that the model has; the embedding can be narrower than the rest."""
    width = getattr(modules[embed], "embedding_dim", width)
    if stack in modules:
        yield Site(stack, "model", None, width, width)
    if isinstance(modules[embed], nn.Embedding):
        yield Site(embed, "embed", None, 1, width)
    if head in modules and is_linear(modules[head]):
        yield Site(head, "head", None, *features(modules[head]))


def stacked_sites(
    place: Stacked, path: str, role: str, layer: int, module: nn.Module, experts: int | None = None
) -> Iterator[Site]:
    """A role's site in every expert, or in the first of them."""
    held, wide_out, wide_in = module.get_parameter(place.parameter).shape
    if place.transposed:
        wide_out, wide_in = wide_in, wide_out
    rows = place.rows(wide_out)
    for expert in range(experts or held):
        stack = Stack(place.parameter, expert, place.transposed)
        yield Site(path, role, layer, wide_in, rows.size if rows else wide_out, rows, stack=stack)


def _block_sites(
    rules: Backbone, layer: int, block: str, modules: Mapping[str, nn.Module], width: int, config: Any
) -> Iterator[Site]:
    yield Site(block, "block", layer, width, width)
    for role, places in rules.parts.items():
        for place in places if isinstance(places, tuple) else (places,):
            path = f"{block}.{_path(place)}"
            if path not in modules:
                continue
            if role in MODULE_ROLES:
                yield Site(path, role, layer, width, width, residual=rules.residual.get(role))
            elif isinstance(place, Stacked):
                yield from stacked_sites(place, path, role, layer, modules[path])
            elif isinstance(place, Fused):
                wide_in, wide_out = features(modules[path])
                rows = place.rows(config, wide_out)
                yield Site(path, role, layer, wide_in, rows.size, rows)
            else:
                yield Site(path, role, layer, *features(modules[path]))


def _path(place: Place) -> str:
    return place if isinstance(place, str) else place.path
