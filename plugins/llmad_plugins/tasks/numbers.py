"""Numbers as answers: how they are read and compared.

`strict` reads the number that the text declares last, with its sign, decimals, fraction or exponent, and of an
equation the right-hand side ("The answer is 3 + 4 = 7."). What may mean several numbers gives none: `1,2345`, `2 or 3`,
`3:2`. `paper` reads as the released scripts do: commas are dropped, and the last number of the text counts, wherever
it stands.
"""

import re
from dataclasses import dataclass
from math import isfinite

from llmad_plugins.tasks.declared import BLANK, LEAD, declarations, endings, settled

_TERM = rf"\(?{BLANK}*+-?[$€£₹¥]?\d++(?:[.,]\d++)*+%?{BLANK}*+\)?{BLANK}*+"
_SUM = rf"{_TERM}(?:[-+*/×÷x]{BLANK}*+{_TERM})*+"
_LEFT = rf"(?:[A-Za-z]\w{{0,15}}{BLANK}*+|{_SUM})="  # as in `x = 5`, `3 + 4 = 7`
_NUMBER = r"(?>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?: \d{3})+(?!\d)|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)"
_FRACTION = rf"(?>(?:(?P<whole>\d+){BLANK}+)?(?P<top>\d+(?:\.\d+)?){BLANK}*/{BLANK}*(?P<bottom>\d+(?:\.\d+)?))"
_NO_MORE = (  # the number is whole, and no part of something else
    r"(?!\d|[,.'’]\d|[²³^]|[kxyzn]\b)"
    rf"(?![%)]*{BLANK}*(?:[-/:]{BLANK}*\d|[+*×÷]{BLANK}*[\w(]|(?:x|times){BLANK}*[\d(]))"
    rf"(?!{BLANK}*(?:,|\band\b|\bor\b|\bto\b|&){BLANK}*[$€£₹¥]?\d)"
    rf"(?!{BLANK}+\d)"
)
_DECLARED = re.compile(
    rf"{LEAD}(?:{_LEFT}{LEAD})*+(?P<sign>[-+]?)[$€£₹¥]?(?:{_FRACTION}|(?P<number>{_NUMBER})){_NO_MORE}"
)
_RELEASED = r"-?\d+\.?\d*"  # evaluate.py of LLM-Adapters
_DASHES = str.maketrans("−–", "--")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}")
_GROWTHS = endings(
    *"0|.5|,000| 000|e7|e+7|/7| / 7| 7/8|^2|²|:7|k|x| and 7| or 7| to 7| & 7|, 7".split("|"),
    *" - 7| + 7| * 7| x 7| × 7| ÷ 7|) + 7|%) + 7| = 7| times 7|. x|'7| =|7 = 8".split("|"),
)


@dataclass(frozen=True)
class NumberJudge:
    """Reads and compares numbers."""

    tolerance: float = 1e-3

    def read(self, text: str, protocol: str) -> str | None:
        """The number that is declared last (strict), or the last one (paper)."""
        if protocol == "paper":
            found = re.findall(_RELEASED, text.replace(",", ""))
            return found[-1].rstrip(".") if found else None
        text = _LATEX_FRACTION.sub(r"\1/\2", text.translate(_DASHES))
        matches = (_DECLARED.match(declared) for _, declared in reversed(declarations(text)))
        values = (_value(match) for match in matches if match)
        return next((value for value in values if value is not None), None)

    def agree(self, answer: str, gold: str) -> bool:
        """Whether two numbers are the same within the tolerance."""
        return abs(number(gold) - float(answer)) <= self.tolerance

    def settled(self, text: str) -> bool:
        """Whether the text has declared a number that nothing it may go on with would change."""
        return settled(text, lambda longer: self.read(longer, "strict"), _GROWTHS)


def number(text: str) -> float:
    """The number that a right answer says; thousands may be set apart by commas.

    Raises:
        ValueError: it says none, or none that is finite.
    """
    value = float(text.replace(",", ""))
    if not isfinite(value):
        raise ValueError(f"{text!r} is no number")
    return value


def _value(match: re.Match[str]) -> str | None:
    sign = match["sign"].replace("+", "")
    if match["number"]:
        return sign + re.sub("[ ,]", "", match["number"])
    bottom = float(match["bottom"])
    return f"{sign}{int(match['whole'] or 0) + float(match['top']) / bottom!r}" if bottom else None
