"""The math sets of LLM-Adapters (arXiv 2304.01933, section 3.1), and any file of the same layout.

A number is right within 0.001, as in the authors' scoring; a letter where it is the same.
"""

import re
from collections.abc import Mapping

from llmad import Hub, Judge, Split, Task, hookimpl
from llmad_plugins.tasks import math_layouts, released
from llmad_plugins.tasks.alpaca import ALPACA
from llmad_plugins.tasks.layouts import Convert
from llmad_plugins.tasks.letters import LetterJudge
from llmad_plugins.tasks.numbers import NumberJudge, number


def judge(gold: str) -> Judge:
    """A letter's judge for a letter, a number's for a number.

    Raises:
        ValueError: the right answer is neither.
    """
    if re.fullmatch(r"\s*[A-Ea-e]\s*", gold):
        return LetterJudge()
    number(gold)
    return NumberJudge()


def _set(
    folder: str,
    summary: str,
    convert: Convert = math_layouts.solved,
    hub: Mapping[Split, Hub] | None = None,
) -> Task:
    return Task(
        name=folder.lower(),
        summary=summary,
        prompt=ALPACA,
        judge=judge,
        files={"test": f"{folder}/test.json"},
        convert=convert,
        hub=hub or {},
        released=released.MATH,
    )


def _hub(dataset: str, revision: str, config: str) -> dict[Split, Hub]:
    return {"train": Hub(dataset, revision, "train", config), "test": Hub(dataset, revision, "test", config)}


ANY = Task(
    name="math",
    summary="Any file of the layout instruction, input, output, answer",
    prompt=ALPACA,
    judge=judge,
    files={"train": "train.json"},
    convert=math_layouts.any_set,
    released=released.MATH,
)
SETS = [
    _set("AddSub", "Additions and subtractions in one or two steps (Hosseini et al., 2014)"),
    _set(
        "AQuA",
        "Algebra with five choices and rationales (Ling et al., 2017)",
        math_layouts.aqua,
        _hub("deepmind/aqua_rat", "33301c6a050c96af81f63cad5562cb5363e88971", "raw"),
    ),
    _set(
        "gsm8k",
        "Grade-school problems in several steps (Cobbe et al., 2021)",
        math_layouts.gsm8k,
        _hub("openai/gsm8k", "e53f048856ff4f594e959d75785d2c2d37b678ee", "main"),
    ),
    _set("mawps", "Problems of several sources (Koncel-Kedziorski et al., 2016)"),
    _set("MultiArith", "Arithmetic in several steps (Roy and Roth, 2015)"),
    _set("SingleEq", "Problems of one equation (Koncel-Kedziorski et al., 2015)"),
    _set("SVAMP", "One-step problems, varied so that shallow cues fail (Patel et al., 2021)", math_layouts.svamp),
]


@hookimpl
def llmad_tasks() -> list[Task]:
    """The math sets."""
    return [ANY, *SETS]
