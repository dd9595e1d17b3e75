"""Labels as answers, such as `answer1` or `true`: how they are read and compared.

`strict` reads the label that the text declares last, or says on a line of its own, in any case and with a blank before
its number. `paper` reads as the released scripts do: the first label that the text mentions, be it inside a word.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from llmad import Judge
from llmad_plugins.tasks.choices import growths, reader
from llmad_plugins.tasks.declared import settled


@dataclass(frozen=True)
class LabelJudge:
    """Reads and compares labels.

    Attributes:
        labels: the ones there are, in lower case.
    """

    labels: tuple[str, ...]

    def read(self, text: str, protocol: str) -> str | None:
        """The label that is declared last (strict), or the first one that is mentioned (paper)."""
        if protocol == "paper":
            found = re.findall("|".join(map(re.escape, self.labels)), text)
            return found[0] if found else None
        label = self._declared(text)
        return re.sub(r"\s", "", label).lower() if label else None

    def agree(self, answer: str, gold: str) -> bool:
        """Whether two labels are the same."""
        return answer == gold.strip()

    def settled(self, text: str) -> bool:
        """Whether the text has declared a label that nothing it may go on with would change."""
        return settled(text, lambda longer: self.read(longer, "strict"), self._growths)

    @cached_property
    def _declared(self) -> Callable[[str], str | None]:
        blank = r"[^\S\n]"
        written = (re.sub(r"\d+$", lambda number: f"{blank}?{number[0]}", re.escape(label)) for label in self.labels)
        label = rf"(?<!\w)(?i:{'|'.join(written)})(?!\w)"
        one = rf"{label}(?!{blank}*(?:,|/|&|\band\b|\bor\b){blank}*{label})"
        return reader(value=one, aside=f"(?P<value>{label})", alone=("", r"[^\w\n]*(?:\n|$)"))

    @cached_property
    def _growths(self) -> tuple[str, ...]:
        return growths(*self.labels[:2])


def label_judge(*families: tuple[str, ...]) -> Callable[[str], Judge]:
    """Make what gives the judge of a right answer: the one of the family of labels that it belongs to.

    What it gives raises ValueError where the answer is in no family.
    """
    judges = {label: LabelJudge(family) for family in families for label in family}

    def judge(gold: str) -> Judge:
        if gold.strip() not in judges:
            raise ValueError(f"{gold!r} is none of {', '.join(judges)}")
        return judges[gold.strip()]

    return judge
