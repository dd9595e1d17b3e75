"""Matching: which sites a model has, and which of them a spec selects. Pure: nothing here changes a model."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import nn

from llmad.backbone import Backbone
from llmad.described import described
from llmad.errors import ModelError, UsageError, nearest
from llmad.layout import Layout, features, is_linear
from llmad.registry import registry
from llmad.resolver import resolved
from llmad.selector import Layers, Part
from llmad.site import PATH_ROLE, QKV_ROLE, ROLES, Site
from llmad.spec import AdapterSpec

# Where a default placement goes in a block that lacks its place: the first of these roles that is there and fits.
STAND_INS = {
    "attn.q": ("mixer.in",),
    "attn.k": ("mixer.in",),
    "attn.v": ("mixer.in",),
    "attn.o": ("mixer", "mixer.out"),
    "mlp.down": ("mlp", "expert.down"),
    "mlp.down@before": ("expert.down@before",),
}


def sites(model: nn.Module) -> list[Site]:
    """Every site of a model that has a role, layer by layer.

    Raises:
        ModelError: it is no transformers language model, or its blocks cannot be found.
    """
    return list(layout(model).sites)


def layout(model: nn.Module) -> Layout:
    """Where everything is: by the rules of a backbone, or by the structure where no backbone describes the model.

    Raises:
        ModelError: it is no transformers language model, or its blocks cannot be found.
    """
    rules = rules_for(model)
    return described(model, rules) if rules else resolved(model)


def rules_for(model: nn.Module) -> Backbone | None:
    """The description of the model's family, if there is one; what a stranger installed goes before what ships.

    Raises:
        ModelError: it is no transformers model.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind is None:
        raise ModelError("not-a-model", f"{type(model).__name__} is not a transformers model: it has no config")
    return next((backbone for backbone in reversed(registry().backbones()) if kind in backbone.model_types), None)


def select(model: nn.Module, spec: AdapterSpec) -> list[Site]:
    """The sites that a spec selects, in the model's order.

    Raises:
        UsageError: a part of the selector matches nothing, or something that the method cannot sit at.
        ModelError: it is no transformers language model, or its blocks cannot be found.
    """
    there = layout(model)
    layers = _layers(spec.layers, len(there.blocks))
    found = _by_default(spec, there, model) if _is_default(spec) else _as_asked(spec, there, model)
    chosen = dict.fromkeys(site for site in found if layers is None or site.layer in layers)
    if not chosen:
        raise UsageError("no-match", f"sites {spec.sites} have no place in layers {spec.layers}")
    for site in chosen:
        if site.role not in spec.fits:
            raise UsageError(
                "misfit",
                f"{spec.name} does not fit {site.role} ({site.label})",
                f"it fits {', '.join(spec.fits)}",
            )
    return _in_order(chosen, there.sites)


def _is_default(spec: AdapterSpec) -> bool:
    return bool(spec.sites == type(spec).model_fields["sites"].default)


def _as_asked(spec: AdapterSpec, there: Layout, model: nn.Module) -> list[Site]:
    """The sites of every part; each has to match."""
    found = []
    for part in spec.sites:
        matched = _matches(part, there.sites, there, model)
        if not matched:
            raise _nothing(part, there, model)
        found += matched
    return found


def _by_default(spec: AdapterSpec, there: Layout, model: nn.Module) -> list[Site]:
    """The method's own placement, with stand-ins in the blocks that lack a place."""
    by_layer: dict[int | None, list[Site]] = {}
    for site in there.sites:
        by_layer.setdefault(site.layer, []).append(site)
    found: list[Site] = []
    for part in spec.sites:
        candidates = [part, *map(Part.parse, STAND_INS.get(part.text, ()))]
        for own in by_layer.values() if len(candidates) > 1 else [list(there.sites)]:
            matches = ([s for s in _matches(one, own, there, model) if s.role in spec.fits] for one in candidates)
            found += next(filter(None, matches), [])
    if not found:
        missing = " nor ".join(part.text for part in spec.sites)
        roles = dict.fromkeys(site.role for site in there.sites if site.role in spec.fits)
        raise UsageError(
            "no-match",
            f"{spec.name} has no default place in this model, which has neither {missing} nor a stand-in",
            f"choose sites of {', '.join(roles)}" if roles else "choose another method",
        )
    return found


def _matches(part: Part, among: Sequence[Site], there: Layout, model: nn.Module) -> list[Site]:
    """What a part means among these sites; a path is looked for in the whole model."""
    if part.path is None:
        found = [site for role in part.roles for site in among if site.role == role]
    else:
        found = _by_path(part, there, model)
    if part.whole:
        found = [_whole(site, model) if site.rows else site for site in found]
    return [_before(site) for site in found] if part.before else found


def _by_path(part: Part, there: Layout, model: nn.Module) -> list[Site]:
    """The linear maps of that path; a fused one as a whole, others with the role that they have."""
    known = {site.path: site for site in there.sites if site.rows is None and site.stack is None}
    found = []
    for path, module in model.named_modules():
        if ".adapters." in path or not cast(Any, part.path).fullmatch(path):
            continue
        if path in known:
            found.append(known[path])
        elif is_linear(module):
            found.append(Site(path, PATH_ROLE, there.layer(path), *features(module)))
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


def _nothing(part: Part, there: Layout, model: nn.Module) -> UsageError:
    roles = [role for role in ROLES if any(site.role == role for site in there.sites)]
    kind = cast(Any, model).config.model_type
    if part.path is None:
        return UsageError("no-match", f"site {part.text!r} is not in this {kind} model", nearest(part.text, roles))
    return UsageError(
        "no-match",
        f"site {part.text!r} matches no module of this {kind} model",
        nearest(part.path.pattern, sorted({site.path for site in there.sites})),
    )


def _in_order(chosen: Iterable[Site], every: Sequence[Site]) -> list[Site]:
    place = {site.path: position for position, site in reversed(list(enumerate(every)))}
    return sorted(chosen, key=lambda site: (place.get(site.path, len(every)), site.path, _number(site), site.slot))


def _number(site: Site) -> int:
    return site.stack.expert if site.stack else -1
