"""The eight commonsense sets of LLM-Adapters (arXiv 2304.01933), and any file of the same layout.

The paper's test rows are the validation splits where the test split hides its answers. ARC and OpenBookQA have theirs.
"""

from collections.abc import Mapping

from llmad import Hub, Split, Task, hookimpl
from llmad_plugins.tasks import commonsense_layouts, released
from llmad_plugins.tasks.alpaca import ALPACA
from llmad_plugins.tasks.labels import label_judge
from llmad_plugins.tasks.layouts import Convert

TRUTH = ("true", "false")
SOLUTIONS = ("solution1", "solution2")
ANSWERS = ("answer1", "answer2", "answer3", "answer4", "answer5")
ENDINGS = ("ending1", "ending2", "ending3", "ending4")
OPTIONS = ("option1", "option2")


def _set(
    folder: str,
    summary: str,
    labels: tuple[str, ...],
    convert: Convert,
    hub: Mapping[Split, Hub],
) -> Task:
    return Task(
        name=folder.lower(),
        summary=summary,
        prompt=ALPACA,
        judge=label_judge(labels),
        files={"train": f"{folder}/train.json", "test": f"{folder}/test.json"},
        max_new_tokens=32,
        convert=convert,
        hub=hub,
        released=released.COMMONSENSE,
    )


def _hub(dataset: str, revision: str, test: str, config: str | None = None) -> dict[Split, Hub]:
    return {"train": Hub(dataset, revision, "train", config), "test": Hub(dataset, revision, test, config)}


def _arc(folder: str, summary: str) -> Task:
    hub = _hub("allenai/ai2_arc", "210d026faf9955653af8916fad021475a3f00453", "test", folder)
    return _set(folder, summary, ANSWERS, commonsense_layouts.science, hub)


ANY = Task(
    name="commonsense",
    summary="Any file of the commonsense sets, such as all of them together",
    prompt=ALPACA,
    judge=label_judge(TRUTH, SOLUTIONS, ANSWERS, ENDINGS, OPTIONS),
    files={"train": "train.json"},
    max_new_tokens=32,
    convert=commonsense_layouts.any_set,
    released=released.COMMONSENSE,
)
SETS = [
    _set(
        "boolq",
        "Questions that are true or false, without the passage (Clark et al., 2019)",
        TRUTH,
        commonsense_layouts.boolq,
        _hub("google/boolq", "35b264d03638db9f4ce671b711558bf7ff0f80d5", "validation"),
    ),
    _set(
        "piqa",
        "Which of two solutions works (Bisk et al., 2020)",
        SOLUTIONS,
        commonsense_layouts.piqa,
        _hub("baber/piqa", "142f6d7367fd9877f0fb3b5734ea6a545f54cdd1", "validation"),
    ),
    _set(
        "social_i_qa",
        "What people do and feel, three answers (Sap et al., 2019)",
        ANSWERS,
        commonsense_layouts.social_i_qa,
        _hub("lighteval/siqa", "54c6a1f8cb6daf4f5abf24a601852612fb35eb25", "validation"),
    ),
    _set(
        "hellaswag",
        "How a scene goes on, four endings (Zellers et al., 2019)",
        ENDINGS,
        commonsense_layouts.hellaswag,
        _hub("Rowan/hellaswag", "218ec52e09a7e7462a5400043bb9a69a41d06b76", "validation"),
    ),
    _set(
        "winogrande",
        "Whom a blank means, two options (Sakaguchi et al., 2020)",
        OPTIONS,
        commonsense_layouts.winogrande,
        _hub("allenai/winogrande", "01e74176c63542e6b0bcb004dcdea22d94fb67b5", "validation", "winogrande_xl"),
    ),
    _arc("ARC-Easy", "Science exams, the easier questions (Clark et al., 2018)"),
    _arc("ARC-Challenge", "Science exams, questions that retrieval gets wrong (Clark et al., 2018)"),
    _set(
        "openbookqa",
        "Elementary science and what follows from it, four answers (Mihaylov et al., 2018)",
        ANSWERS,
        commonsense_layouts.science,
        _hub("allenai/openbookqa", "388097ea7776314e93a529163e0fea805b8a6454", "test", "main"),
    ),
]


@hookimpl
def llmad_tasks() -> list[Task]:
    """The commonsense sets."""
    return [ANY, *SETS]
