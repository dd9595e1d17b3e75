"""Markdown: text from outside as text, whatever marks, tags or controls are in it."""

import re
import unicodedata

_MARKS = {ord(mark): f"&#{ord(mark)};" for mark in "&<>|`[]*_\\~#!$"}
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, marks of direction, halves of characters, separators of lines
_JOINERS = "\u200c\u200d"  # several languages are written with them


def plain(text: object) -> str:
    """Text in a line or a table's cell that reads as it is."""
    return _one_line(text).translate(_MARKS)


def code(text: object) -> str:
    """Text as code, in a line; in a table's cell a bar would still end it."""
    line = _one_line(text)
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    edge = " " if not line or "`" in (line[0], line[-1]) else ""
    return f"{fence}{edge}{line}{edge}{fence}"


def _one_line(text: object) -> str:
    return "".join(_shown(character) for character in " ".join(str(text).split()))


def _shown(character: str) -> str:
    hidden = unicodedata.category(character) in _HIDDEN and character not in _JOINERS
    return f"\\u{ord(character):04x}" if hidden else character
