"""The math sets in their own layouts, made into the rows of LLM-Adapters.

An entry that has no answer, or none that is a number or letter, is a ValueError.
"""

import re

from llmad_plugins.tasks.layouts import Entry, Row, first_of, has_texts
from llmad_plugins.tasks.numbers import number

_CALCULATOR = re.compile(r"<<[^<>]*>>")


def gsm8k(entry: Entry) -> Row | None:
    """`question`, and `answer` with the working and, after `####`, the number."""
    if not has_texts(entry, "question", "answer") or "####" not in entry["answer"]:
        return None
    working, _, final = entry["answer"].rpartition("####")
    answer = final.strip().replace(",", "")
    working = _CALCULATOR.sub("", working).strip()
    return _row(entry["question"], f"{working}\nThe answer is {answer}.", str(number(answer)))


def aqua(entry: Entry) -> Row | None:
    """`question`, `options` such as `A)21`, `rationale`, and the letter in `correct`."""
    if not has_texts(entry, "question") or not isinstance(entry.get("options"), list):
        return None
    letter = str(entry.get("correct") or "").strip()
    if not re.fullmatch("[A-E]", letter):
        raise ValueError(f"the correct option is {letter!r}, none of A to E")
    options = "".join(f"({option}" for option in entry["options"]).replace("(", " (").replace(")", ") ")
    instruction = f"{entry['question'].strip()} Answer Choices:{options}"
    return _row(instruction, f"{entry.get('rationale') or ''}\nThe answer is ({letter}).".lstrip(), letter)


def svamp(entry: Entry) -> Row | None:
    """`Body`, `Question` and `Answer`."""
    if not has_texts(entry, "Body", "Question"):
        return None
    body, answer = entry["Body"].strip(), str(number(str(entry.get("Answer"))))
    stop = "" if body.endswith(".") else "."
    return _row(f"{body}{stop} {entry['Question'].strip()}", _said(answer), answer)


def solved(entry: Entry) -> Row | None:
    """`sQuestion` and `lSolutions`: AddSub, MultiArith, SingleEq and MAWPS."""
    if not has_texts(entry, "sQuestion"):
        return None
    solutions = entry.get("lSolutions")
    if not isinstance(solutions, list) or len(solutions) != 1:
        raise ValueError(f"lSolutions is {solutions!r}, not a list of one number")
    answer = str(solutions[0]).strip()
    number(answer)
    return _row(entry["sQuestion"], _said(answer), answer)


any_set = first_of(gsm8k, aqua, svamp, solved)


def _row(instruction: str, output: str, answer: str) -> Row:
    return {"instruction": instruction, "input": "", "output": output, "answer": answer}


def _said(answer: str) -> str:
    return f"The answer is {answer.removesuffix('.0')}."
