"""Anatomy: the parts of one block of a model that nobody described.

Every linear map is looked at: its name is a hint (`lexicon`), its shape must agree, its neighbours decide.

    queries, keys, values   by name, several in one module
    output of attention     by name, beside them or one module up
    mixer                   a module with an input of that name; in and out by name and width
    MLP                     a map down to the block's width, and maps up from it in the nearest module around
    experts                 parameters with a matrix for each expert, or a list of small MLPs
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature

from torch import nn

from llmad import lexicon
from llmad.backbone import Stacked
from llmad.layout import Confidence, Finding, features, is_linear

_NO = Parameter.empty


@dataclass(frozen=True)
class Part:
    """What was found at a path: one role, or several that share a linear map and are still to be told apart.

    `wide_in` is what goes into a module, where that is not the block's width.
    """

    path: str
    roles: tuple[str, ...]
    confidence: Confidence
    why: str
    fused: bool = False
    stacked: Stacked | None = None
    wide_in: int | None = None


@dataclass(frozen=True)
class Block:
    """A block as it is looked at.

    Attributes:
        roots: paths of the modules that make it: one, or several where a model keeps its parts in lists of their own.
        modules: every module in it by path.
        width: of the hidden states that pass it.
    """

    roots: tuple[str, ...]
    modules: Mapping[str, nn.Module]
    width: int

    def holds(self, path: str) -> bool:
        """Whether a module is a part of the block and not the block itself."""
        return path in self.modules and (path not in self.roots or len(self.roots) > 1)

    def around(self, path: str) -> Iterator[str]:
        """The module, then those around it, up to the block."""
        while path in self.modules:
            yield path
            path = path.rpartition(".")[0]


@dataclass(frozen=True)
class _Leaf:
    """A linear map: its path, the name that tells what it is, and the module that has something of that name."""

    path: str
    name: str
    holder: str
    wide_in: int
    wide_out: int


def parts(block: Block) -> tuple[list[Part], list[Finding]]:
    """The parts of a block that have a role, and the linear maps that have none."""
    leaves, left = _leaves(block)
    attention = _attention(block, leaves)
    mixers = _mixers(block, _without(leaves, attention))
    experts = _experts(block, [part.path for part in attention if part.roles == ("attn",)])
    found = [*attention, *mixers, *experts]
    found += _mlps(block, _without(leaves, found), [part.path for part in experts if part.roles == ("mlp",)])
    if not attention and not mixers and any("attends" in finding.why for finding in left):
        why = "its block attends to more than the text, and a text alone does not pass it"
        return [], left + [Finding(part.path, "", "none", why) for part in found]
    for leaf in _without(leaves, found):
        why = "no role is known for it; `path:` reaches it"
        left.append(Finding(leaf.path, "", "none", why))
    return found, left + _others(block, {part.path for part in found if part.stacked})


def stream(block: Block) -> int:
    """The width of what goes from block to block: k times the block's where it is k residual streams side by side.

    What tells is a map in a part of the block that weighs the streams: it reads all of them and makes k numbers.
    """
    for path, module in block.modules.items():
        if is_linear(module) and path.rpartition(".")[0].rpartition(".")[0] in block.roots:
            wide_in, wide_out = features(module)
            if wide_out > 1 and wide_in == wide_out * block.width:
                return wide_in
    return block.width


def _others(block: Block, stacks: Collection[str]) -> list[Finding]:
    """Routers, and other large weights that no linear map holds and no stack of experts is."""
    left = []
    for path, module in block.modules.items():
        if is_linear(module) or isinstance(module, nn.Conv1d) or path in stacks:
            continue
        for name, weight in module.named_parameters(recurse=False):
            aside = _aside(block, path)
            if weight.dim() > 1 and (aside or 4 * weight.numel() >= block.width**2):
                why = aside or f"{type(module).__name__} holds it, which is no linear map"
                left.append(Finding(f"{path}.{name}", "", "none", why))
    return left


def _leaves(block: Block) -> tuple[list[_Leaf], list[Finding]]:
    """The linear maps, and those that are put aside."""
    leaves, aside = [], []
    for path, module in block.modules.items():
        if not is_linear(module) or any(is_linear(block.modules[up]) for up in list(block.around(path))[1:]):
            continue
        reason = _aside(block, path)
        if reason:
            aside.append(Finding(path, "", "none", reason))
            continue
        holder, _, name = path.rpartition(".")
        if name in lexicon.WRAPPERS and _known(holder.rpartition(".")[2]):
            holder, _, name = holder.rpartition(".")
        leaves.append(_Leaf(path, name.lower(), holder, *features(module)))
    return leaves, aside


def _aside(block: Block, path: str) -> str:
    for up in list(block.around(path))[1:]:
        name = up.rpartition(".")[2]
        if name in lexicon.ASIDE:
            return lexicon.ASIDE[name]
        if name.endswith("layernorm"):
            return "it is a part of a norm"
    return lexicon.ASIDE["router"] if path.endswith(lexicon.ROUTERS) else ""


def _known(name: str) -> bool:
    every = (lexicon.QUERY, lexicon.KEY, lexicon.VALUE, lexicon.FUSED, lexicon.ATTENTION_OUT, lexicon.UP, lexicon.DOWN)
    return any(name.lower() in names for names in every)


def _without(leaves: Sequence[_Leaf], found: Sequence[Part]) -> list[_Leaf]:
    taken = {part.path for part in found}
    return [leaf for leaf in leaves if leaf.path not in taken]


def _by_holder(leaves: Sequence[_Leaf]) -> dict[str, list[_Leaf]]:
    held: dict[str, list[_Leaf]] = {}
    for leaf in leaves:
        held.setdefault(leaf.holder, []).append(leaf)
    return held


def _attention(block: Block, leaves: Sequence[_Leaf]) -> list[Part]:
    """Queries, keys, values and the output, module by module; keys without queries are none of attention."""
    found: list[Part] = []
    names = {
        **dict.fromkeys(lexicon.QUERY, ("attn.q",)),
        **dict.fromkeys(lexicon.KEY, ("attn.k",)),
        **dict.fromkeys(lexicon.VALUE, ("attn.v",)),
        **lexicon.FUSED,
    }
    for holder, held in _by_holder(leaves).items():
        inputs = [leaf for leaf in held if leaf.name in names]
        if not any(leaf.name in lexicon.QUERY or leaf.name in lexicon.FUSED for leaf in inputs):
            continue
        out = _attention_out(block, holder, leaves, inputs)
        for leaf in inputs:
            gated = leaf.name in lexicon.QUERY and out is not None and leaf.wide_out == 2 * out.wide_in
            found.append(_input(leaf, names[leaf.name], gated or leaf.name in lexicon.FUSED, inputs))
        if out:
            sure: Confidence = "sure" if out.wide_out == block.width else "likely"
            found.append(Part(out.path, ("attn.o",), sure, f"named {out.name}, beside the keys and values"))
        whole = out.holder if out else holder
        if block.holds(whole) and not (out and _adds(block, out)):
            wide_in = max(block.width, *(leaf.wide_in for leaf in inputs))
            why = "holds queries, keys, values and their output"
            found.append(Part(whole, ("attn",), "sure", why, wide_in=wide_in))
    return found


def _input(leaf: _Leaf, roles: tuple[str, ...], fused: bool, inputs: Sequence[_Leaf]) -> Part:
    """A map that makes queries, keys or values; sure where its neighbours are there too."""
    alone = len(inputs) == 1 and len(roles) < 3
    return Part(
        leaf.path, roles, "likely" if alone else "sure", f"named {leaf.name}, {leaf.wide_in} to {leaf.wide_out}", fused
    )


def _attention_out(block: Block, holder: str, leaves: Sequence[_Leaf], inputs: Sequence[_Leaf]) -> _Leaf | None:
    """The output: by name, beside the inputs or one module up, as wide as the block if there is a choice."""
    for place in (holder, holder.rpartition(".")[0]):
        there = [leaf for leaf in leaves if leaf.holder == place and leaf.name in lexicon.ATTENTION_OUT]
        there = [leaf for leaf in there if leaf not in inputs]
        if there and (place == holder or block.holds(place)):
            return max(there, key=lambda leaf: leaf.wide_out == block.width)
    return None


def _adds(block: Block, leaf: _Leaf) -> bool:
    """Whether a map stands in a module of its own that is also given the residual, to add it there."""
    around = leaf.path.rpartition(".")[0]
    if around == leaf.holder:
        return False
    needed = [given for given in signature(block.modules[around].forward).parameters.values() if given.default is _NO]
    return len(needed) > 1


def _mixers(block: Block, leaves: Sequence[_Leaf]) -> list[Part]:
    """In and out of modules that mix positions without queries, keys and values."""
    found: list[Part] = []
    for holder, held in _by_holder(leaves).items():
        outs = [leaf for leaf in held if leaf.name in lexicon.MIXER_OUT]
        if not outs or not any(leaf.name.startswith(lexicon.MIXER_IN) for leaf in held):
            continue
        for leaf in held:
            if leaf in outs:
                found.append(Part(leaf.path, ("mixer.out",), "sure", f"named {leaf.name}, beside a mixer's input"))
            elif leaf.wide_in == block.width and leaf.name not in lexicon.MIXER_INNER:
                found.append(Part(leaf.path, ("mixer.in",), "sure", "reads the hidden states in a mixer"))
        if block.holds(holder):
            found.append(Part(holder, ("mixer",), "sure", "holds an input and an output, and no queries"))
    return found


def _experts(block: Block, attention: Sequence[str]) -> list[Part]:
    """Parameters with a matrix for each expert, and the mixture around them."""
    found: list[Part] = []
    for path, module in block.modules.items():
        if any(f"{path}.".startswith(f"{other}.") for other in attention):
            continue
        stacks = [*_stacks(path, module)]
        shared = "shared" in path.rpartition(".")[2]
        for kind, place in stacks:
            found += _stacked(block, module, "mlp" if shared else "expert", kind, place)
        around = path.rpartition(".")[0]
        if stacks and not shared and block.holds(around):
            mixture = Part(around, ("mlp",), "sure", "holds the experts")
            found += [mixture] if mixture not in found else []
    return found


def _stacks(path: str, module: nn.Module) -> Iterator[tuple[str, Stacked]]:
    """The stacked parameters of a module, with what they are named for."""
    own = dict(module.named_parameters(recurse=False))
    named = {name: lexicon.STACKED.get(name, "") for name in own}
    named["weight"] = lexicon.STACKED_WEIGHT.get(path.rpartition(".")[2], "")
    turned = _transposed(module, {kind: own[name] for name, kind in named.items() if kind and name in own})
    for name, kind in named.items():
        if kind and name in own and own[name].dim() == 3:
            yield kind, Stacked(path, name, transposed=turned)


def _transposed(module: nn.Module, weights: Mapping[str, nn.Parameter]) -> bool:
    """Whether the matrices are (in, out): by the module's word, or by what fits between the ways up and down."""
    said = getattr(module, "is_transposed", None)
    if said is not None or not {"gate_up", "down"} <= weights.keys():
        return bool(said)
    up, down = weights["gate_up"], weights["down"]
    return bool(up.shape[1] == down.shape[2] and up.shape[2] == 2 * down.shape[1])


def _stacked(block: Block, module: nn.Module, family: str, kind: str, place: Stacked) -> Iterator[Part]:
    """The roles of a stacked parameter."""
    roles = [f"{family}.gate", f"{family}.up"] if kind == "gate_up" else [f"{family}.{kind}"]
    interleaved = not getattr(module, "is_concatenated", True)
    shape = tuple(module.get_parameter(place.parameter).shape)
    fits = block.width in shape[1:]
    for number, role in enumerate(roles):
        own = Stacked(place.path, place.parameter, number, len(roles), place.transposed, interleaved)
        why = f"parameter {place.parameter} {shape}, a matrix for each expert"
        yield Part(place.path, (role,), "sure" if fits else "likely", why, stacked=own)


def _mlps(block: Block, leaves: Sequence[_Leaf], mixtures: Sequence[str]) -> list[Part]:
    """The MLPs: by the names of their ways down or, where no name is known, by shape alone."""
    by_name = [leaf for leaf in leaves if leaf.name in lexicon.DOWN and leaf.wide_out == block.width]
    found = [part for down in by_name for part in _mlp(block, down, leaves, mixtures, "sure")]
    if found or mixtures:
        return found
    leaves = [leaf for leaf in leaves if "att" not in leaf.path]
    by_shape = [leaf for leaf in leaves if leaf.wide_out == block.width < leaf.wide_in]
    return [part for down in by_shape for part in _mlp(block, down, leaves, mixtures, "likely")]


def _mlp(
    block: Block, down: _Leaf, leaves: Sequence[_Leaf], mixtures: Sequence[str], sure: Confidence
) -> Iterator[Part]:
    """One MLP: its way down, and the ways up in the nearest module around."""
    for around in block.around(down.holder):
        ups = [leaf for leaf in leaves if _leads_to(block, leaf, down) and f"{leaf.path}.".startswith(f"{around}.")]
        named = [leaf for leaf in ups if leaf.name in lexicon.UP or leaf.name in lexicon.GATE]
        ups = named if sure == "sure" else ups
        if ups:
            break
    else:
        return
    family = "expert" if ".experts." in down.path else "mlp"
    yield Part(down.path, (f"{family}.down",), sure, f"named {down.name}, {down.wide_in} down to {down.wide_out}")
    yield from _ways_up(ups, down, family, sure)
    inside = any(f"{around}.".startswith(f"{mixture}.") for mixture in mixtures)
    if block.holds(around) and family == "mlp" and not inside:
        yield Part(around, ("mlp",), sure, "holds the way up and the way down")


def _leads_to(block: Block, leaf: _Leaf, down: _Leaf) -> bool:
    return leaf != down and leaf.wide_in == block.width and leaf.wide_out in (down.wide_in, 2 * down.wide_in)


def _ways_up(ups: Sequence[_Leaf], down: _Leaf, family: str, sure: Confidence) -> Iterator[Part]:
    """The way up and the gate: two maps, one that makes both, or one alone."""
    gate, up = f"{family}.gate", f"{family}.up"
    if len(ups) == 1:
        both = ups[0].wide_out == 2 * down.wide_in
        why = f"named {ups[0].name}, {ups[0].wide_in} up to {ups[0].wide_out}" + ", twice what goes down" * both
        yield Part(ups[0].path, (gate, up) if both else (up,), sure, why, fused=both)
        return
    gates = [leaf for leaf in ups if leaf.name in lexicon.GATE]
    others = [leaf for leaf in ups if leaf.name not in lexicon.GATE]
    if len(gates) == len(others) == 1:
        yield Part(gates[0].path, (gate,), sure, f"named {gates[0].name}, beside a way up")
        yield Part(others[0].path, (up,), sure, f"named {others[0].name}, beside a gate")
