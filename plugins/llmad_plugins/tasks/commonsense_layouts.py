"""The commonsense sets in their own layouts, made into the rows of LLM-Adapters.

An entry whose right answer is hidden, as in most test splits, is a ValueError.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llmad_plugins.tasks.layouts import Entry, Row, first_of, has_texts

_QUESTION = "Please choose the correct answer to the question: "


def boolq(entry: Entry) -> Row | None:
    """`question`, `passage`, which is not shown, and `answer`."""
    if not has_texts(entry, "question", "passage"):
        return None
    right = _place(str(entry.get("answer")).lower(), ("true", "false"))
    ask = f"Please answer the following question with true or false, question: {entry['question']}?"
    return _row(f"{ask}\n\nAnswer format: true/false", ("true", "false")[right])


def piqa(entry: Entry) -> Row | None:
    """`goal`, `sol1`, `sol2` and `label`, 0 or 1."""
    if not has_texts(entry, "goal", "sol1", "sol2"):
        return None
    ask = f"Please choose the correct solution to the question: {entry['goal']}"
    choices = [entry["sol1"], entry["sol2"]]
    return _chosen(ask, "solution", choices, _place(entry.get("label"), "01"), between="\n\n")


def social_i_qa(entry: Entry) -> Row | None:
    """`context`, `question`, `answerA` to `answerC` and `label`, 1 to 3."""
    if not has_texts(entry, "context", "question", "answerA", "answerB", "answerC"):
        return None
    ask = f"{_QUESTION}{entry['context']} {entry['question']}"
    choices = [entry[f"answer{letter}"] for letter in "ABC"]
    return _chosen(ask, "answer", choices, _place(entry.get("label"), "123"))


def hellaswag(entry: Entry) -> Row | None:
    """`activity_label`, `ctx`, four `endings` and `label`, 0 to 3."""
    if not has_texts(entry, "activity_label", "ctx") or not isinstance(entry.get("endings"), list):
        return None
    ask = f"Please choose the correct ending to complete the given sentence: {entry['activity_label']}: {entry['ctx']}"
    return _chosen(ask, "ending", entry["endings"], _place(entry.get("label"), "0123"))


def winogrande(entry: Entry) -> Row | None:
    """`sentence` with a blank, `option1`, `option2` and `answer`, 1 or 2."""
    if not has_texts(entry, "sentence", "option1", "option2"):
        return None
    fill = "Please choose the correct answer to fill in the blank to complete the given sentence: "
    choices = [entry["option1"], entry["option2"]]
    right = _place(entry.get("answer"), "12")
    return _chosen(f"{fill}{entry['sentence']}", "option", choices, right, before_format=" ")


def science(entry: Entry) -> Row | None:
    """ARC and OpenBookQA: a question, `choices` with text and label, and `answerKey`; the question may hold both."""
    inner = entry["question"] if isinstance(entry.get("question"), Mapping) else entry
    stem = next((inner[name] for name in ("question_stem", "stem", "question") if name in inner), None)
    if not isinstance(stem, str) or not isinstance(inner.get("choices"), list | Mapping):
        return None
    texts, labels = _listed(inner["choices"])
    if not 2 <= len(texts) <= 5:
        raise ValueError(f"it has {len(texts)} choices, not 2 to 5")
    return _chosen(f"{_QUESTION}{stem}", "answer", texts, _place(entry.get("answerKey"), labels))


any_set = first_of(boolq, piqa, social_i_qa, hellaswag, winogrande, science)


def _listed(choices: Any) -> tuple[list[str], list[str]]:
    """Texts and labels, which a table of the hub has in two lists and an original file in one object a choice."""
    try:
        if isinstance(choices, Mapping):
            return list(choices["text"]), list(choices["label"])
        return [choice["text"] for choice in choices], [choice["label"] for choice in choices]
    except (KeyError, TypeError):
        raise ValueError("its choices have no text and label") from None


def _place(right: Any, known: Sequence[str]) -> int:
    """Where the right answer stands among the known ones."""
    if str(right) not in list(known):
        raise ValueError(f"its right answer is {right!r}, none of {', '.join(known)}: it is hidden, or no answer")
    return list(known).index(str(right))


def _chosen(
    ask: str, kind: str, choices: Sequence[str], right: int, between: str = " ", before_format: str = "\n\n"
) -> Row:
    if right >= len(choices):
        raise ValueError(f"its right answer is number {right + 1} of {len(choices)}")
    labels = [f"{kind}{number}" for number in range(1, len(choices) + 1)]
    listed = between.join(f"{label.capitalize()}: {choice}" for label, choice in zip(labels, choices, strict=True))
    return _row(f"{ask}\n\n{listed}{before_format}Answer format: {'/'.join(labels)}", labels[right])


def _row(instruction: str, label: str) -> Row:
    return {"instruction": instruction, "input": "", "output": f"the correct answer is {label}", "answer": label}
