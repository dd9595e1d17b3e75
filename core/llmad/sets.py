"""Sets: the test sets of a folder in the paper's layout, and such a folder written from a split."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmad import rows
from llmad.errors import DataError, UsageError
from llmad.files import check_writable, storing, write_json, write_text
from llmad.prompt import Row
from llmad.registry import registry
from llmad.splitting import Halves
from llmad.task import Task

TRAINING = "train.json"
SPLIT = "split.json"


def tasks_in(folder: Path) -> list[Task]:
    """The tasks whose test file lies in a folder."""
    known = (registry().task(name) for name, _ in registry().offers("task"))
    return [task for task in known if "test" in task.files and (folder / task.files["test"]).is_file()]


def sets_in(folder: Path, names: Sequence[str] = ()) -> dict[str, list[Row]]:
    """The test rows of a folder by task: of those named, or of all that have a file there.

    Raises:
        DataError: there is none, or one of them is missing or malformed.
        UsageError: there is no such task.
    """
    if not folder.is_dir():
        raise DataError("no-data", f"{folder}: there is no such folder")
    tasks = [registry().task(name) for name in names] or tasks_in(folder)
    if not tasks:
        raise DataError(
            "no-data", f"{folder} holds the test file of no task", "llmad list-tasks says what is looked for"
        )
    return {task.name: rows.rows(task, "test", str(folder), 0, 0) for task in tasks}


def write_split(halves: Halves, output: Path, about: Mapping[str, object]) -> None:
    """Write a folder in the paper's layout: `train.json` with all rows to train on, and each set's `test.json`.

    Args:
        halves: of each task, the rows to train on and those to test with.
        output: the folder, which must be free.
        about: how the split was made; goes to `split.json` with the counts.

    Raises:
        UsageError: something is in the folder.
        StorageError: it cannot be written.
    """
    check_writable(output)
    if output.is_dir() and any(output.iterdir()):
        raise UsageError("output-exists", f"{output} is not empty", "give another --output")
    training = [row for train, _ in halves.values() for row in train]
    random.Random("order").shuffle(training)  # so that the sets are mixed; the same every time
    with storing(output):
        output.mkdir(parents=True, exist_ok=True)
    _write(output / TRAINING, training)
    for name, (_, test) in halves.items():
        path = output / registry().task(name).files["test"]
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, test)
    counts = {name: {"train": len(train), "test": len(test)} for name, (train, test) in halves.items()}
    write_json(output / SPLIT, {**about, "sets": counts})


def _write(path: Path, written: Sequence[Row]) -> None:
    write_text(path, json.dumps([dict(row) for row in written], indent=1, ensure_ascii=False) + "\n")
