r"""What a text declares to be its answer: "The answer is ...", "Answer: ...", "#### ...", "\boxed{...".

A cue is the place where a declaration begins; what stands there is for the judge of the task to read. What is merely
supposed ("if the answer is 5") is no declaration, and neither is what is denied ("the answer is not 5").
"""

import re
from collections.abc import Callable, Iterable

BLANK = r"[^\S\n]"
"""White space within a line."""
_NOUN = (
    r"\b(?:answer(?:\s+(?:choice|option|key|letter))?|ans\b\.?"
    r"|(?:the|correct|right|best|closest|nearest|final)\s+(?:option|choice|letter))"
)
_OF_WHAT = r"(?:\s+(?:to|for|of)\s+[^.:=\n]{1,60}?)?(?:\s*\((?![a-e]\))[^()\n]{1,20}\))?"
_VERB = (
    r"(?:is|was|equals|becomes|comes\s+to"
    r"|(?:would|will|must|should|has\s+to|(?:turns|comes)\s+out\s+to|seems\s+to|appears\s+to)\s+be)\b"
)
_LINK = (
    rf"[*_`]*(?:\s*(?:[:=→]|[-=]>)+|\s[-–—](?=\s)|,?\s*(?:(?:then|therefore|thus|hence)\s*,?\s*)?(?<=[\s*_`)]){_VERB})"
)
_NO_STEPS = r"(?![^\S\n]*[:*_]*[^\S\n]*\n\s*\d+[.)][^\S\n]+\w)"  # a numbered list begins
_FINAL = r"####(?=[^\S\n]*\S+[^\S\n]*(?:\n|$))"  # as in GSM8K; a heading says more
_CUE = re.compile(rf"{_NOUN}{_OF_WHAT}{_LINK}{_NO_STEPS}|{_FINAL}|\\boxed\s*\{{", re.IGNORECASE)
_SUPPOSED = re.compile(
    r"\b(?:if|whether|unless|suppose|supposing|assume|assuming)\s+(?:(?:that|the|our|my|final|correct|right)\s+)*$",
    re.IGNORECASE,
)
_FAR = 60  # characters before a cue or a choice that may say what it means

_BETWEEN = (
    "therefore|thus|hence|then|so|still|also|indeed|simply|just|clearly|now|actually|only|exactly|precisely|"
    "approximately|approx|about|around|roughly|nearly|almost|probably|likely|equal to|a total of|closest to|given by|"
    r"most|to be|the|rs|usd|inr|us|(?:option|choice|letter|answer)(?!\s?\d)"
)
LEAD = rf"(?:[\s,:=*_~≈#({{\[`\"'“”‘’$€£₹¥]|\\[a-zA-Z]+\s*\{{|\\(?![a-zA-Z])|\b(?i:{_BETWEEN})\b\.?)*+"
"""What may stand between a cue and its value: marks, markup, currency and words such as `therefore`."""

_SENTENCE_ENDS = re.compile(r"\n|[.!?](?=\s+[A-Z]|\s*$)")


def declarations(text: str) -> list[tuple[int, str]]:
    """Every declaration: where it begins, and the text from there on."""
    cues = [cue for cue in _CUE.finditer(text) if not _SUPPOSED.search(before(text, cue.start()))]
    return [(cue.end(), text[cue.end() :]) for cue in cues]


def before(text: str, place: int) -> str:
    """What stands right before a place, as far as it may bear on its meaning."""
    return text[max(0, place - _FAR) : place]


def sentence(text: str) -> str:
    """The text up to where its first sentence ends."""
    text = text.lstrip()
    end = _SENTENCE_ENDS.search(text)
    return text[: end.start()] if end else text


def endings(*texts: str) -> tuple[str, ...]:
    """Every ending of the texts, none twice: what a text that breaks off inside one of them may go on with."""
    return tuple(dict.fromkeys(text[start:] for text in texts for start in range(len(text))))


def settled(text: str, read: Callable[[str], str | None], growths: Iterable[str]) -> bool:
    """Whether something is read that stays whichever of the growths the text goes on with.

    A growth that says an answer by itself is a new declaration, and changes none.
    """
    found = read(text)
    return found is not None and all(read(text + growth) in (found, read(growth) or found) for growth in growths)
