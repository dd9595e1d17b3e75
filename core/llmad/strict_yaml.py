"""YAML as people mean it: 1.2's plain values, no key twice, and no aliases, which can blow a line up to gigabytes."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_PLAIN = {  # of an unquoted text; any other is text: `yes`, `1:30`, `010` and `2026-01-01`, which YAML 1.1 makes others
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9_]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


def parse(text: str) -> Any:
    """Read YAML.

    Raises:
        yaml.YAMLError: it is none, says a key twice, or has an alias, a merge or a tag that makes objects.
        ValueError: a number of thousands of digits, or lists in lists in lists.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except RecursionError:
        raise ValueError("it has too many levels") from None


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  as in the base class

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"alias *{event.anchor}: write it out", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: list[Any] = []
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} is there twice", key.start_mark)
            seen.append(name)
        return super().construct_mapping(node, deep)


for _kind, (_form, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_form})$"), [*_first])
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("$"), [""])
