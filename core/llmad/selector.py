"""The selector grammar: which places, in which layers.

    attn.q+attn.v             roles
    attn.*   mlp.*   mixer.*  groups of roles
    expert.*                  the linear maps of the experts in a mixture
    linear                    every linear map of the blocks, experts and routers left out
    mlp.in                    the linear maps that the MLP's input goes into: up, and gate where there is one
    attn.qkv                  the linear maps that make q, k and v; one that is fused counts once, as a whole
    mlp.up@before             the adapter transforms the place's input instead of its output
    path:model.layers.*.up    a module path or a regular expression for the whole of it
    layers 8:  -4:  0+3+5     Python slices and lists; negative numbers count from the last layer

Text in, value objects out; no model needed.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from llmad.errors import nearest
from llmad.site import ATTENTION_ROLES, EXPERT_ROLES, MIXER_ROLES, MLP_ROLES, QKV_ROLE, ROLES, Site

GROUPS = {
    "linear": (*ATTENTION_ROLES, *MIXER_ROLES, *MLP_ROLES),
    "attn.*": ATTENTION_ROLES,
    "mixer.*": MIXER_ROLES,
    "mlp.*": MLP_ROLES,
    "expert.*": EXPERT_ROLES,
    "mlp.in": ("mlp.gate", "mlp.up"),
    QKV_ROLE: ("attn.q", "attn.k", "attn.v", QKV_ROLE),
}
_PATH = "path:"
_BEFORE = "@before"
_SEPARATOR = re.compile(r"\+(?=[A-Za-z])")  # a plus inside a regular expression is followed by no letter


class _Text(ABC):
    """A value object that is written as text; pydantic reads and writes it so."""

    text: str

    @classmethod
    @abstractmethod
    def parse(cls, value: Any) -> Self:
        """Read text or plain data."""

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other) == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "title": cls.__name__}


@dataclass(frozen=True)
class Part:
    """One part of a selector: roles or a path, at or before the place; a fused linear's parts apart or as a whole."""

    text: str
    roles: tuple[str, ...] = ()
    path: re.Pattern[str] | None = None
    before: bool = False

    @property
    def whole(self) -> bool:
        """Whether a fused linear is meant as a whole."""
        return QKV_ROLE in self.roles

    def covers(self, site: Site) -> bool:
        """Whether a site is one that this part means."""
        named = site.role in self.roles if self.path is None else bool(self.path.fullmatch(site.path))
        return named and site.before == self.before

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read one part.

        Raises:
            ValueError: an unknown role or group, or a path that is no regular expression.
        """
        name, before = text.removesuffix(_BEFORE), text.endswith(_BEFORE)
        if name.startswith(_PATH):
            try:
                return cls(text, path=re.compile(name.removeprefix(_PATH)), before=before)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"{text!r} is not a regular expression: {error}") from None
        roles = GROUPS.get(name) or ((name,) if name in ROLES else ())
        if not roles:
            raise ValueError(f"{name!r} is no role or group; {nearest(name, [*ROLES, *GROUPS])}")
        return cls(text, roles=roles, before=before)


class Sites(_Text):
    """Which places: `Sites("attn.q", "attn.v")`, or the same as text, `attn.q+attn.v`.

    Raises:
        ValueError: no part, a part given twice, or a part that the grammar does not know.
    """

    def __init__(self, *parts: str) -> None:
        self.parts = tuple(Part.parse(part.strip()) for part in parts)
        if not self.parts:
            raise ValueError("no site given")
        self.text = "+".join(part.text for part in self.parts)
        if len(_SEPARATOR.split(self.text)) != len(self.parts):
            raise ValueError(f"a plus stands before a letter inside a part of {self.text!r}; write {{1,}} for it")
        if len({part.text for part in self.parts}) < len(self.parts):
            raise ValueError(f"a part stands twice in {self.text!r}")

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def covers(self, site: Site) -> bool:
        """Whether a site is one that a part means."""
        return any(part.covers(site) for part in self.parts)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read text, a list of parts, or another `Sites`."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(*_SEPARATOR.split(value))
        if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            return cls(*value)
        raise ValueError(f"sites are text such as 'attn.q+attn.v' or a list of it, not {value!r}")


class Layers(_Text):
    """Which layers: `8:`, `-4:`, `0+3+5`, `:8:2`; parts are joined by `+`.

    Raises:
        ValueError: a part that is neither a number nor a slice.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.parts = tuple(self._part(part) for part in self.text.split("+"))

    @staticmethod
    def _part(text: str) -> int | slice:
        if not re.fullmatch(r"-?\d+|(-?\d+)?:(-?\d+)?(:(-?\d+)?)?", text):
            raise ValueError(f"{text!r} is neither a layer number nor a slice such as 8: or -4:")
        if ":" not in text:
            return int(text)
        bounds = slice(*(int(bound) if bound else None for bound in text.split(":")))
        if bounds.step == 0:
            raise ValueError(f"the step of {text!r} is zero")
        return bounds

    def of(self, count: int) -> dict[str, set[int]]:
        """What each part means in a model of `count` layers; a part that means nothing has an empty set."""
        return {
            text: {layer for layer in range(count) if self._means(part, layer, count)}
            for text, part in zip(self.text.split("+"), self.parts, strict=True)
        }

    @staticmethod
    def _means(part: int | slice, layer: int, count: int) -> bool:
        return layer in range(count)[part] if isinstance(part, slice) else part in (layer, layer - count)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read text, a number, a list of numbers, or another `Layers`."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str | int) and not isinstance(value, bool):
            return cls(str(value))
        if isinstance(value, list | tuple) and value:
            return cls("+".join(str(part) for part in value))
        raise ValueError(f"layers are text such as '8:' or '0+3+5', not {value!r}")
