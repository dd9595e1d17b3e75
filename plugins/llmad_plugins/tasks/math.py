"""The six math sets of LLM-Adapters (arXiv 2304.01933, section 3.1), and any file of the same layout.

A number is right within 0.001, as in the authors' scoring; a letter where it is the same. `strict` reads the answer
that the text declares last ("The answer is ..."); `paper` reads as the released scripts do: the last number of the
text, or its first capital A to E.
"""

import re
from dataclasses import dataclass
from math import isfinite

from llmad import Judge, Prompt, Task, hookimpl

_NUMBER = r"-?\d+(?:\.\d+)?"  # as the released scripts read it
_DECLARED = r"(?i:the answer is)\s*:?\s*[^\w\s.-]{0,3}\s*"  # then perhaps marks, as in `**5**`, `(D)` and `$5`
_DECLARED_NUMBER = rf"{_DECLARED}(-?)[^\w\s.-]?(\d+(?:\.\d+)?|\.\d+)"
_DECLARED_LETTER = rf"{_DECLARED}([A-E]\b|[a-e](?=\)))"

ALPACA = Prompt(
    question="Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{instruction}\n\n### Response:\n",
    question_with_input="Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n"
    "### Input:\n{input}\n\n### Response:\n",
)


@dataclass(frozen=True)
class NumberJudge:
    """Reads and compares numbers; thousands may be set apart by commas."""

    tolerance: float = 1e-3

    def read(self, text: str, protocol: str) -> str | None:
        """The declared number (strict), or the last one (paper)."""
        if protocol == "paper":
            found = re.findall(_NUMBER, text.replace(",", ""))
        else:
            text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
            found = [sign + number for sign, number in re.findall(_DECLARED_NUMBER, text)]
        return found[-1] if found else None

    def agree(self, answer: str, gold: str) -> bool:
        """Whether two numbers are the same within the tolerance."""
        return abs(float(answer) - _number(gold)) <= self.tolerance


@dataclass(frozen=True)
class LetterJudge:
    """Reads and compares the letter of a choice."""

    def read(self, text: str, protocol: str) -> str | None:
        """The declared letter (strict), or the first capital A to E (paper)."""
        if protocol == "paper":
            found = re.findall(r"[A-E]", text)
            return found[0] if found else None
        found = re.findall(_DECLARED_LETTER, text)
        return found[-1].upper() if found else None

    def agree(self, answer: str, gold: str) -> bool:
        """Whether two letters are the same."""
        return answer == gold.strip().upper()


def judge(gold: str) -> Judge:
    """A letter's judge for a letter, a number's for a number.

    Raises:
        ValueError: the gold answer is neither.
    """
    if re.fullmatch(r"\s*[A-Ea-e]\s*", gold):
        return LetterJudge()
    _number(gold)
    return NumberJudge()


def _number(gold: str) -> float:
    number = float(gold.replace(",", ""))
    if not isfinite(number):
        raise ValueError(f"{gold!r} is no number")
    return number


def _set(folder: str, summary: str) -> Task:
    return Task(folder.lower(), summary, ALPACA, judge, files={"test": f"{folder}/test.json"})


TASKS = [
    Task("math", "Any file of the layout instruction, input, output, answer", ALPACA, judge,
         files={"train": "train.json"}),
    _set("AddSub", "Additions and subtractions in one or two steps (Hosseini et al., 2014)"),
    _set("AQuA", "Algebra with five choices and rationales (Ling et al., 2017)"),
    _set("gsm8k", "Grade-school problems in several steps (Cobbe et al., 2021)"),
    _set("MultiArith", "Arithmetic in several steps (Roy and Roth, 2015)"),
    _set("SingleEq", "Problems of one equation (Koncel-Kedziorski et al., 2015)"),
    _set("SVAMP", "One-step problems, varied so that shallow cues fail (Patel et al., 2021)"),
]  # fmt: skip


@hookimpl
def llmad_tasks() -> list[Task]:
    """The math sets."""
    return TASKS
