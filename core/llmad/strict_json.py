"""JSON as the standard has it: no key twice, no NaN, and no deeper than anybody writes."""

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any

_DEEPEST = 32  # levels; what is written here has five


def parse(text: str | bytes) -> Any:
    """Read JSON; bytes are UTF-8.

    Raises:
        ValueError: it is not JSON, or says a key twice, a number that is not finite, text that is no Unicode, or has
            more than 32 levels.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except RecursionError:
        raise ValueError(f"it has more than {_DEEPEST} levels") from None
    _check(content)
    return content


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"key {key!r} is there twice")
        content[key] = value
    return content


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _float(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _check(content: Any) -> None:
    level, depth = [content], 1
    while level:  # and not by recursion, which the depth of a file could exhaust
        if depth > _DEEPEST:
            raise ValueError(f"it has more than {_DEEPEST} levels")
        inside: list[Any] = []
        for value in level:
            if isinstance(value, str):
                value.encode()  # half a surrogate pair is a UnicodeEncodeError, which is a ValueError
            elif isinstance(value, dict):
                inside += [*value, *value.values()]
            elif isinstance(value, list):
                inside += value
        level, depth = inside, depth + 1
