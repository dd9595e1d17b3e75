"""Resolver: the layout of a model that nobody described, from its structure.

The embedding and the head are where transformers says; the blocks are the list of modules nearest to the embedding;
`anatomy` finds the parts of a block by names and shapes, and `tracing` tells apart what shares a linear map. Every
decision is a `Finding` with its reason, and so is every linear map that is left without a role.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from itertools import takewhile
from typing import Any, cast

import torch
from torch import nn

from llmad import lexicon, tracing
from llmad.anatomy import Block, Part, parts, stream
from llmad.described import outer_sites, stacked_sites
from llmad.errors import ModelError
from llmad.layout import NUMBER, Finding, Layout, features, is_linear, width_of
from llmad.site import MODULE_ROLES, QKV_ROLE, Rows, Site

_THREE = ("attn.q", "attn.k", "attn.v")
_CURE = "describe the family in a backbone plugin"
Told = Mapping[str, Mapping[str, Rows | None]]  # path of a fused map, then role, to its rows; None where all are


def resolved(model: nn.Module) -> Layout:
    """The layout by the structure.

    Raises:
        ModelError: the model has no embedding or no blocks that can be found, or no gradient passes these.
    """
    modules = {path: module for path, module in model.named_modules() if ".adapters." not in f"{path}."}
    embed, head = _ends(model, modules)
    _check_backward(model)
    roots = _blocks(model, modules, embed)
    width = width_of(model, modules[embed])
    found, left, wide = [], [], []
    for layer, own in enumerate(roots):
        block = Block(own, {path: module for path, module in modules.items() if _under(path, own)}, width)
        there, without = parts(block)
        wide.append(stream(block))
        found += [(layer, part) for part in there]
        left += without
    told = _told_apart(model, found, modules)
    named: list[tuple[Site, Finding]] = [
        (site, Finding(site.label, site.role, "sure", "transformers names it"))
        for site in outer_sites(modules, ".".join(_shared(embed, roots[0][0])), embed, head, width)
    ]
    for layer, own in enumerate(roots):
        in_layer = [part for number, part in found if number == layer]
        if len(own) == 1 and in_layer:
            site = Site(own[0], "block", layer, wide[layer], wide[layer])
            named.append((site, Finding(site.label, "block", "sure", "an entry of the list of blocks")))
        for part in in_layer:
            named += [(site, _finding(site, part)) for site in _sites(part, layer, modules, width, told)]
            left += _untold(part, told)
    sites, findings = zip(*named, strict=True)
    return Layout("", tuple(own[0] for own in roots), sites, (*findings, *left))


def _ends(model: nn.Module, modules: Mapping[str, nn.Module]) -> tuple[str, str]:
    """Paths of the token embedding and of the head, which may be nowhere."""
    names = {id(module): path for path, module in modules.items()}
    embed = names.get(id(cast(Any, model).get_input_embeddings()), "")
    if not embed:
        reason = f"{type(model).__name__} does not say where its token embedding is"
        raise ModelError("unknown-layout", reason, _CURE)
    return embed, names.get(id(cast(Any, model).get_output_embeddings()), "")


def _check_backward(model: nn.Module) -> None:
    """Refuse blocks that are run in an autograd function of their own: frozen inputs end the gradient there."""
    code = vars(sys.modules[type(model).__module__])
    own = [name for name, kind in code.items() if isinstance(kind, type) and issubclass(kind, torch.autograd.Function)]
    for name in own:
        if "reversible" in name.lower():
            reason = f"{type(model).__name__} runs its blocks in {name}, which no gradient passes on a frozen base"
            raise ModelError("own-backward", reason, "choose another architecture")


def _blocks(model: nn.Module, modules: Mapping[str, nn.Module], embed: str) -> list[tuple[str, ...]]:
    """For each block the paths of the modules that make it.

    The list of blocks is the one that shares most of the embedding's path, then the one that is least deep, then the
    one with the most parameters. Lists of the same kind beside it go on with it; lists of other kinds and of the same
    length, in the same module, have the other parts of its blocks.
    """
    lists = {path: module for path, module in modules.items() if _is_block_list(path, module)}
    if not lists:
        raise ModelError("unknown-layout", f"{type(model).__name__} has no list of blocks", _CURE)

    def nearness(path: str) -> tuple[int, int]:
        common = len(_shared(path, embed))
        return common, common - path.count(".")

    best = max(lists, key=lambda path: (*nearness(path), sum(weight.numel() for weight in lists[path].parameters())))
    near = [path for path in lists if nearness(path) == nearness(best)]
    kind = type(cast(Any, lists[best])[0])
    same = [path for path in near if type(cast(Any, lists[path])[0]) is kind]
    if len(same) > 1:
        return [(f"{path}.{number}",) for path in same for number in range(len(cast(Any, lists[path])))]
    length, around = len(cast(Any, lists[best])), best.rpartition(".")[0]
    beside = [path for path in near if len(cast(Any, lists[path])) == length and path.rpartition(".")[0] == around]
    return [tuple(f"{path}.{number}" for path in beside) for number in range(length)]


def _is_block_list(path: str, module: nn.Module) -> bool:
    if not isinstance(module, nn.ModuleList) or not len(module) or any(part.isdigit() for part in path.split(".")):
        return False
    if any(word in path for word in lexicon.ELSEWHERE):
        return False
    return any(is_linear(inner) for inner in module[0].modules()) and not is_linear(module[0])


def _under(path: str, roots: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{root}.") for root in roots)


def _shared(first: str, second: str) -> list[str]:
    """What two paths have in common from the start: the module that holds both."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return [name for name, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _told_apart(model: nn.Module, found: Sequence[tuple[int, Part]], modules: Mapping[str, nn.Module]) -> Told:
    """The rows of every role that shares a linear map, where all that share it could be told apart.

    One layer of each kind is traced, with every linear map in it; the others are as it is.
    """
    kinds: dict[Any, list[tuple[int, Part]]] = {}
    for layer, part in found:
        if part.fused:
            around = modules[part.path.rpartition(".")[0]]
            kinds.setdefault((NUMBER.sub("*", part.path), type(around), features(modules[part.path])), []).append(
                (layer, part)
            )
    traced = {alike[0][0] for alike in kinds.values()}
    linear = (part for layer, part in found if layer in traced and not part.stacked)
    seen = tracing.uses(model, [part.path for part in linear if part.roles[0] not in MODULE_ROLES]) if kinds else {}
    told: dict[str, dict[str, Rows | None]] = {}
    for (_, _, (_, wide)), alike in kinds.items():
        first = alike[0][1]
        own = {role: seen.get(first.path, {}).get(role, set()) for role in first.roles}
        stretches = {role: tracing.rows(wide, numbers) for role, numbers in own.items()}
        if all(stretches.values()):
            rows = {role: None if len(own[role]) == wide else stretches[role] for role in own}
            told |= {part.path: rows for _, part in alike}
    return told


def _sites(part: Part, layer: int, modules: Mapping[str, nn.Module], width: int, told: Told) -> Iterator[Site]:
    """The sites of a part; a fused map that could not be told apart has one only where it makes q, k and v."""
    module = modules[part.path]
    if part.stacked:
        yield from stacked_sites(part.stacked, part.path, part.roles[0], layer, module, _experts(module))
    elif part.roles[0] in MODULE_ROLES:
        residual = "residual" if "residual" in signature(module.forward).parameters else None
        yield Site(part.path, part.roles[0], layer, part.wide_in or width, width, residual=residual)
    elif not part.fused:
        yield Site(part.path, part.roles[0], layer, *features(module))
    elif part.path in told:
        for role, rows in told[part.path].items():
            wide_in, wide_out = features(module)
            yield Site(part.path, role, layer, wide_in, rows.size if rows else wide_out, rows)
    elif part.roles == _THREE:
        yield Site(part.path, QKV_ROLE, layer, *features(module))


def _experts(module: nn.Module) -> int:
    """How many experts have all their matrices; some models have others that compute nothing."""
    return min(len(weight) for weight in module.parameters(recurse=False) if weight.dim() == 3)


def _finding(site: Site, part: Part) -> Finding:
    how = "; its rows were traced" if site.rows and not site.stack else ""
    return Finding(site.label, site.role, part.confidence, part.why + how)


def _untold(part: Part, told: Told) -> Iterator[Finding]:
    if part.fused and part.path not in told:
        why = f"makes {', '.join(part.roles)} in an order that could not be traced"
        yield Finding(part.path, QKV_ROLE if part.roles == _THREE else "", "none", why)
