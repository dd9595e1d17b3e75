"""Backbone: where the roles are in a family of models, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd
from pathlib import Path
from typing import Any

from llmad.site import Rows


@dataclass(frozen=True)
class Fused:
    """A role that is some of the output rows of a fused linear.

    The output is read as blocks of parts that follow one another, and the role is part number `part` of each block.
    `shares` says how wide the parts are, one to another, and `blocks` how many blocks there are: each a number, or the
    name of the config attribute that holds it (`num_key_value_heads` for the k and v of a model whose queries share
    them, `num_attention_heads` for the blocks of BLOOM). `when` names config attributes with the values that the
    place needs to be one, for a family that has fused its linear in several ways.
    """

    path: str
    part: int
    shares: tuple[int | str, ...] = (1, 1, 1)
    blocks: int | str = 1
    when: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def holds(self, config: Any) -> bool:
        """Whether a model of this config is fused like that."""
        return all(getattr(config, name, None) == value for name, value in self.when.items())

    def rows(self, config: Any, out_features: int) -> Rows:
        """The rows in a linear of `out_features` outputs.

        Raises:
            ValueError: the outputs cannot be parted like that.
        """
        groups, *counts = (
            getattr(config, count) if isinstance(count, str) else count for count in (self.blocks, *self.shares)
        )
        shares = [count // gcd(*counts) for count in counts]
        unit, rest = divmod(out_features, groups * sum(shares))
        if rest:
            parts = ":".join(map(str, shares))
            raise ValueError(f"{self.path}: {out_features} outputs are not {groups} x parts of {parts}")
        return Rows(groups, unit * sum(shares), start=unit * sum(shares[: self.part]), length=unit * shares[self.part])


@dataclass(frozen=True)
class Stacked:
    """A role of every expert, in a parameter that stacks their matrices: (experts, out_features, in_features).

    Where several roles share the output rows (gate and up), the role is part number `part` of `parts` equal ones,
    one after the other or, `interleaved`, row by row in turn. `transposed` says that the parameter is (experts,
    in_features, out_features).
    """

    path: str
    parameter: str
    part: int = 0
    parts: int = 1
    transposed: bool = False
    interleaved: bool = False

    def rows(self, out_features: int) -> Rows | None:
        """The role's rows of an expert's outputs; None where all are its."""
        length = out_features // self.parts
        if self.parts == 1:
            return None
        if self.interleaved:
            return Rows(length, self.parts, self.part, 1)
        return Rows(1, out_features, self.part * length, length)


Place = str | Fused | Stacked


@dataclass(frozen=True)
class Backbone:
    """The description of a model family; a plugin returns it from `llmad_backbones`.

    Attributes:
        name: the family's name.
        summary: one line.
        model_types: the values of `config.model_type` that these rules hold for.
        model: path of the stack that turns token ids into hidden states.
        embed: path of the token embedding.
        head: path of the output projection.
        blocks: path of the list of blocks.
        parts: role to its place inside a block, or to several that a role can have in different blocks or in one; a
            place that a model does not have is simply not there.
        residual: role to the name of the argument that the part's module adds to its own output, if it does.
        shapes: name of a well-known size to its config, `model_type` included; enough to plan, without weights.
        folders: name to a local folder with weights and tokenizer that the plugin ships.
    """

    name: str
    summary: str
    model_types: tuple[str, ...] = ()
    model: str = ""
    embed: str = ""
    head: str = ""
    blocks: str = ""
    parts: Mapping[str, Place | tuple[Place, ...]] = field(default_factory=dict)
    residual: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
