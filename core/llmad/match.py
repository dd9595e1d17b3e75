"""Matching: which sites a model has, and which of them a spec selects. Pure: nothing here changes a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import nn

from llmad.backbone import Backbone, Fused
from llmad.errors import ModelError, UsageError, nearest
from llmad.registry import registry
from llmad.selector import Layers, Part
from llmad.site import PATH_ROLE, QKV_ROLE, ROLES, Site
from llmad.spec import AdapterSpec


def sites(model: nn.Module) -> list[Site]:
    """Every site of a model that has a role, layer by layer.

    Raises:
        ModelError: no backbone describes this kind of model.
    """
    rules, modules = rules_for(model), dict(model.named_modules())
    found = [
        _outer(rules, role, path, modules)
        for role, path in (("model", rules.model), ("embed", rules.embed), ("head", rules.head))
        if path in modules
    ]
    for layer in range(depth(model)):
        found += _block_sites(rules, layer, modules, cast(Any, model).config)
    return found


def select(model: nn.Module, spec: AdapterSpec) -> list[Site]:
    """The sites that a spec selects, in the model's order.

    Raises:
        UsageError: a part of the selector matches nothing, or something that the method cannot sit at.
        ModelError: no backbone describes this kind of model.
    """
    every = sites(model)
    layers = _layers(spec.layers, depth(model))
    chosen: dict[Site, None] = {}
    for part in spec.sites:
        matched = _matches(part, every, model)
        if not matched:
            raise _nothing(part, every, model)
        chosen |= dict.fromkeys(site for site in matched if layers is None or site.layer in layers)
    if not chosen:
        raise UsageError("no-match", f"sites {spec.sites} have no place in layers {spec.layers}")
    for site in chosen:
        if site.role not in spec.fits:
            raise UsageError(
                "misfit",
                f"{spec.name} does not fit {site.role} ({site.label})",
                f"it fits {', '.join(spec.fits)}",
            )
    return _in_order(chosen, every)


def depth(model: nn.Module) -> int:
    """The number of blocks."""
    return len(cast(nn.ModuleList, model.get_submodule(rules_for(model).blocks)))


def rules_for(model: nn.Module) -> Backbone:
    """The description of the model's family.

    Raises:
        ModelError: there is none.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind is None:
        raise ModelError("not-a-model", f"{type(model).__name__} is not a transformers model: it has no config")
    rules = next((backbone for backbone in registry().backbones() if kind in backbone.model_types), None)
    if rules is None:
        known = sorted(kind for backbone in registry().backbones() for kind in backbone.model_types)
        raise ModelError("undescribed-model", f"no backbone describes model type {kind!r}", nearest(kind, known))
    try:
        model.get_submodule(rules.blocks)
    except AttributeError:
        raise ModelError(
            "undescribed-model",
            f"backbone {rules.name} expects {rules.blocks!r} in a {kind} model; {type(model).__name__} has none",
            "load the model with its language-modelling head (AutoModelForCausalLM)",
        ) from None
    return rules


def _outer(rules: Backbone, role: str, path: str, modules: Mapping[str, nn.Module]) -> Site:
    embedding = cast(nn.Embedding, modules[rules.embed])
    width = embedding.embedding_dim
    if role == "head":
        return Site(path, role, None, *features(modules[path]))
    return Site(path, role, None, 1 if role == "embed" else width, width)


def _block_sites(rules: Backbone, layer: int, modules: Mapping[str, nn.Module], config: Any) -> Iterator[Site]:
    block, width = f"{rules.blocks}.{layer}", config.hidden_size
    yield Site(block, "block", layer, width, width)
    for role, place in rules.parts.items():
        path = f"{block}.{place.path if isinstance(place, Fused) else place}"
        if path not in modules:
            continue
        if role in ("attn", "mlp"):
            yield Site(path, role, layer, width, width, residual=rules.residual.get(role))
        elif isinstance(place, Fused):
            wide_in, wide_out = features(modules[path])
            rows = place.rows(config, wide_out)
            yield Site(path, role, layer, wide_in, rows.size, rows)
        else:
            yield Site(path, role, layer, *features(modules[path]))


def features(module: nn.Module) -> tuple[int, int]:
    """(in_features, out_features) of a linear map."""
    if hasattr(module, "nf"):  # transformers' Conv1D, a linear map with its weight transposed
        return cast(Any, module).nx, cast(Any, module).nf
    return cast(nn.Linear, module).in_features, cast(nn.Linear, module).out_features


def _matches(part: Part, every: Sequence[Site], model: nn.Module) -> list[Site]:
    if part.path is None:
        found = [site for role in part.roles for site in every if site.role == role]
    else:
        found = _by_path(part, every, model)
    if part.whole:
        found = [_whole(site, model) if site.rows else site for site in found]
    return [_before(site) for site in found] if part.before else found


def _by_path(part: Part, every: Sequence[Site], model: nn.Module) -> list[Site]:
    """The linear maps of that path; a fused one as a whole, others with the role that they have."""
    known = {site.path: site for site in every if site.rows is None}
    prefix = rules_for(model).blocks + "."
    found = []
    for path, module in model.named_modules():
        if ".adapters." in path or not cast(Any, part.path).fullmatch(path):
            continue
        if path in known:
            found.append(known[path])
        elif hasattr(module, "in_features") or hasattr(module, "nf"):
            index = path.removeprefix(prefix).partition(".")[0] if path.startswith(prefix) else ""
            found.append(Site(path, PATH_ROLE, int(index) if index.isdigit() else None, *features(module)))
    return found


def _whole(site: Site, model: nn.Module) -> Site:
    """The fused linear that a role is a part of."""
    return Site(site.path, QKV_ROLE, site.layer, *features(model.get_submodule(site.path)))


def _before(site: Site) -> Site:
    return replace(site, out_features=site.in_features, before=True)


def _layers(layers: Layers | None, count: int) -> set[int] | None:
    if layers is None:
        return None
    meaning = layers.of(count)
    for text, numbers in meaning.items():
        if not numbers:
            raise UsageError("no-match", f"layers {text!r} is none of this model's layers", f"it has 0 to {count - 1}")
    return set[int]().union(*meaning.values())


def _nothing(part: Part, every: Sequence[Site], model: nn.Module) -> UsageError:
    there = [role for role in ROLES if any(site.role == role for site in every)]
    kind = cast(Any, model).config.model_type
    if part.path is None:
        return UsageError("no-match", f"site {part.text!r} is not in this {kind} model", nearest(part.text, there))
    paths = sorted({site.path for site in every})
    return UsageError(
        "no-match",
        f"site {part.text!r} matches no module of this {kind} model",
        nearest(part.path.pattern, paths),
    )


def _in_order(chosen: Mapping[Site, None], every: Sequence[Site]) -> list[Site]:
    place = {site.path: position for position, site in reversed(list(enumerate(every)))}
    return sorted(chosen, key=lambda site: (place.get(site.path, len(every)), site.path, site.slot))
