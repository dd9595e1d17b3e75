"""One of several choices as an answer: the choice that a text declares last.

A choice is declared right after a cue ("The answer is (D)"), later in the cue's sentence where no other stands there
("The answer is 36 km/h (B)"), or without a cue: "option C is correct", "Hence, option C.", a line of its own. What is
denied, supposed or merely discussed is not declared.
"""

import re
from collections.abc import Callable, Iterable

from llmad_plugins.tasks.declared import BLANK, LEAD, before, declarations, endings, sentence

_OPEN = r"[(\[{$*_\"'“‘`]*"
_CLOSED = r"[)\]}$*_\"'”’`]*"
_KIND = r"(?:option|choice|answer)"
_SO = r"\b(?:hence|therefore|thus|so)\b,?\s+(?:the\s+)?"
_SAME_AS = r"\b(?:corresponds?\s+to|matches|which\s+is|that\s+is|choose|select|pick)\s+(?:the\s+)?(?:answer\s+)?"
_CHOSEN = r"\b(?:I|we)\s+(?:choose|select|pick|go\s+with)\s+"
_CONCLUDED = re.compile(rf"(?:(?:{_SO}|{_CHOSEN})(?:{_KIND}\s+)?|{_SAME_AS}{_KIND}\s+){_OPEN}$", re.IGNORECASE)
_NOT = rf"\bnot\s+(?:(?:the|{_KIND})\s+)*{_OPEN}$"
_DENIED = re.compile(_NOT, re.IGNORECASE)
_DOUBTED = re.compile(
    rf"\b(?:if|whether|unless|statement|neither|nor)\s+(?:that\s+)?(?:(?:the|{_KIND})\s+)*{_OPEN}$|{_NOT}",
    re.IGNORECASE,
)
_AMOUNT = rf"(?:{BLANK}+[$€£]?\d[\d.,/]*%?(?:{BLANK}+[A-Za-z/]+){{0,2}}?)?"  # as in `(D) 12 km is correct`
_RIGHT = re.compile(
    rf"{_CLOSED}{_AMOUNT}{BLANK}+(?:is|must be|would be|will be) (?:(?:therefore|thus|clearly|indeed) )?"
    rf"(?:correct\b|right(?={BLANK}*(?:[.,;!)*\n]|$))"
    r"|the (?:(?:only|final|best|correct|right|closest) )*(?:answer|option|choice)\b)",
    re.IGNORECASE,
)
_END = re.compile(rf"{_CLOSED}{BLANK}*(?:\n|$|[.!](?:\s|$))")


def reader(value: str, aside: str, alone: tuple[str, str]) -> Callable[[str], str | None]:
    """Make what reads the choice that a text declares last, as it is written there.

    Args:
        value: a pattern of a choice.
        aside: a pattern of a choice that stands later in a cue's sentence, with the group `value`.
        alone: patterns of what stands before and after a choice in a sentence that says nothing else and is the last
            of its line.
    """
    anywhere = re.compile(value)
    head = re.compile(f"{LEAD}(?P<value>{value})")
    later = re.compile(aside)
    line = re.compile(rf"(?:^|\n|[.!?]\s)[^\w\n]*{alone[0]}{_OPEN}$", re.IGNORECASE)
    line_end = re.compile(alone[1])

    def after_cue(declared: str) -> str | None:
        if match := head.match(declared):
            return match["value"]
        rest = sentence(declared)
        places = {match.start("value"): match["value"] for match in later.finditer(rest)}
        return _only(value for place, value in places.items() if not _DENIED.search(before(rest, place)))

    def uncued(text: str, match: re.Match[str]) -> bool:
        lead, end = before(text, match.start()), match.end()
        return bool(
            (_RIGHT.match(text, end) and not _DOUBTED.search(lead))
            or (_CONCLUDED.search(lead) and _END.match(text, end))
            or (line.search(lead) and line_end.match(text, end))
        )

    def read(text: str) -> str | None:
        found = [(place, choice) for place, rest in declarations(text) if (choice := after_cue(rest))]
        found += [(match.start(), match[0]) for match in anywhere.finditer(text) if uncued(text, match)]
        return max(found)[1] if found else None

    return read


def growths(*choices: str) -> tuple[str, ...]:
    """What may follow a choice and change how it is read: other choices above all."""
    more = (f"{between}{choice}" for choice in choices for between in ("", " ", ", ", " or ", " and ", "/", " ("))
    return endings("x", " x", "'s", *more, " = x", " + x", "/x", "-x", ".5 (A)")


def _only(choices: Iterable[str]) -> str | None:
    """The choice that all of them are; None where they are several."""
    found = set(choices)
    return found.pop() if len(found) == 1 else None
