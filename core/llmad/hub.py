"""The hub: data sets by name and commit, read by the library `datasets`, which only this module imports."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmad.errors import DataError, UsageError
from llmad.table import Entry, arrow_entries
from llmad.task import Hub, Split, Task

_PLACE = re.compile(
    r"hub(:(?P<dataset>[\w.-]+/[\w.-]+)(:(?P<config>[^:@#]+))?)?(@(?P<revision>[^@#]+))?(#(?P<split>[\w.]+))?"
)
_FORM = "write hub:OWNER/NAME@COMMIT, with :CONFIG after the name and #SPLIT at the end where needed"
_PINNED = "a commit is 40 digits and letters, in the data set's history on the hub: hub:OWNER/NAME@COMMIT"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_place(data: str) -> bool:
    """Whether data is on the hub: `hub`, alone or before `:`, `@` or `#`. A folder of that name is `./hub`."""
    return re.match(r"hub($|[:@#])", data) is not None


def faults(data: str) -> list[UsageError]:
    """What is wrong with a place on the hub as it is written: another form, or no commit. Nothing is looked up."""
    try:
        _parts(data)
    except UsageError as error:
        return [error]
    return []


def names_no_split(data: str) -> bool:
    """Whether a place leaves the split open, so that training and test rows both have theirs."""
    return _parts(data)["split"] is None


def place(data: str, task: Task, split: Split) -> Hub:
    """Where on the hub a split is: `hub` is the task's own place, `hub:OWNER/NAME[:CONFIG]@COMMIT` any.

    `@COMMIT` after `hub` alone reads the task's own data set as it was then; `#SPLIT` names the split, which is else
    the task's own, or called as ours.

    Raises:
        UsageError: another form, or no commit is pinned.
        DataError: the task has no such rows on the hub.
    """
    parts = _parts(data)
    if parts["dataset"] is not None:
        return Hub(parts["dataset"], parts["revision"] or "", parts["split"] or split, parts["config"])
    if split not in task.hub:
        raise DataError("no-data", f"task {task.name} names no {split} rows on the hub", _FORM)
    own = task.hub[split]
    found = replace(own, revision=parts["revision"] or own.revision, split=parts["split"] or own.split)
    if not found.revision:
        said = f"task {task.name} reads {found.dataset}, and no commit of it is pinned"
        raise UsageError("no-revision", said, "say which is meant: hub@COMMIT")
    return found


def name(place: Hub) -> str:
    """A place as users write it."""
    return f"hub:{place.dataset}{f':{place.config}' if place.config else ''}@{place.revision}#{place.split}"


def entries(place: Hub) -> list[Entry]:
    """The entries of a split on the hub, at its commit and no other.

    Raises:
        DataError: whatever kept it from being read, or another version came.
    """
    import datasets

    _quiet(datasets)
    try:
        builder = datasets.load_dataset_builder(place.dataset, place.config, revision=place.revision)
        _check_version(place, builder.hash)
        builder.download_and_prepare()
        table = builder.as_dataset(split=place.split).data
    except DataError:
        raise
    except Exception as error:  # of the hub, the network, the disk or the data: each library has its own
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError("no-hub-data", f"{name(place)} cannot be read: {said}", _cure(datasets)) from None
    return arrow_entries(name(place), table)


def _parts(data: str) -> dict[str, str | None]:
    match = _PLACE.fullmatch(data)
    if match is None:
        raise UsageError("bad-place", f"{data!r} is no place on the hub", _FORM)
    parts = match.groupdict()
    if parts["dataset"] and parts["revision"] is None:
        raise UsageError("no-revision", f"{data} names no commit, and a data set may change", _PINNED)
    if parts["revision"] and not _COMMIT.fullmatch(parts["revision"]):
        raise UsageError("no-revision", f"{data}: {parts['revision']!r} is no commit, and may move", _PINNED)
    return parts


def _quiet(datasets: Any) -> None:
    """No bars, no talk, and no ping that counts who reads what."""
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False


def _check_version(place: Hub, version: str) -> None:
    """`datasets` falls back to any version in its cache, and to a folder of the same name here: neither is meant."""
    if version != place.revision:
        here = Path(place.dataset).exists()
        said = f"a folder {place.dataset} here is in the way" if here else f"the cache has {version} instead"
        raise DataError("other-revision", f"{name(place)} cannot be read: {said}")


def _cure(datasets: Any) -> str:
    if datasets.config.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and it was not downloaded before"
    return "check the name, the configuration and the split; private data needs HF_TOKEN"
