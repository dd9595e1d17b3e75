"""Letters of choices as answers, as AQuA has them: how they are read and compared.

`strict` reads the letter that the text declares last: a capital, or any letter in brackets, but neither an article nor
a letter of a formula. `paper` reads as the released scripts do: the first capital A to E, be it inside a word.
"""

import re
from dataclasses import dataclass

from llmad_plugins.tasks.choices import growths, reader
from llmad_plugins.tasks.declared import BLANK, settled

_WORDS_AFTER = r"because|since|as|which|with|but|for|where|when|given|due"
_NO_FORMULA = rf"(?!{BLANK}*[+*×÷/^=<>]{BLANK}*[\w(])(?!-\w)"
_NO_LIST = rf"(?!{BLANK}*(?:,|\band\b|\bor\b|&){BLANK}*\(?[A-E](?!\w))"
_NO_ARTICLE = rf"(?!(?<=A){BLANK}+(?!(?:{_WORDS_AFTER})\b)[a-z])"
_CAPITAL = rf"[A-E](?!\w|['’]\w){_NO_FORMULA}{_NO_LIST}{_NO_ARTICLE}"
_LETTER = rf"\b(?:[A-Ea-e](?={BLANK}*[*_]*\))|{_CAPITAL})"
_BEFORE = r"(?:(?<!\w)\(\s*|\b(?i:option|choice|answer|is)\s+[(*_]*)"
_AFTER = r"(?=[)\]}*_$\s]*(?:$|[.,;:!]|(?:because|since|as|and|or)\b))"

_declared = reader(
    value=_LETTER,
    aside=f"{_BEFORE}(?P<value>{_LETTER}){_AFTER}",
    alone=(
        r"(?:answer\s+)?(?:option|choice|answer)\s+",
        r"\W*$",
    ),  # at the end of the text: before, it may be a heading
)
_GROWTHS = growths("A", "B", "(A)", "(B)")


@dataclass(frozen=True)
class LetterJudge:
    """Reads and compares the letter of a choice."""

    def read(self, text: str, protocol: str) -> str | None:
        """The letter that is declared last (strict), or the first capital A to E (paper)."""
        if protocol == "paper":
            found = re.findall("[A-E]", text)
            return found[0] if found else None
        letter = _declared(text)
        return letter.upper() if letter else None

    def agree(self, answer: str, gold: str) -> bool:
        """Whether two letters are the same."""
        return answer == gold.strip().upper()

    def settled(self, text: str) -> bool:
        """Whether the text has declared a letter that nothing it may go on with would change."""
        return settled(text, lambda longer: self.read(longer, "strict"), _GROWTHS)
