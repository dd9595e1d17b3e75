"""Distil: rows and a teacher in, training rows with the teacher's rationales out.

```
rows               -> rationale.first    -> Dialogue    the question
teacher + Dialogue -> teacher.reply      -> Said        in the journal before the next is asked
task + Said        -> rationale          -> Rationale   right, wrong, no answer, cut off
Rationales         -> the file           the journal is removed when that is on the disk
```
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from llmad import rationale
from llmad.errors import DataError, ModelError, ResumeError, StorageError, UsageError
from llmad.files import check_writable, storing, write_text
from llmad.in_flight import as_they_come
from llmad.ledger import Ledger
from llmad.prompt import Row
from llmad.rationale import VERDICTS, Rationale, Said, Verdict
from llmad.rows import fingerprint
from llmad.rows import rows as rows_of
from llmad.task import Split, Task
from llmad.teacher import Reply, Teacher

_UNTOLD = 200  # generated rows, where neither the user nor the task says how many


@dataclass(frozen=True)
class Answered:
    """One more row has its reply; `done` of `rows` are, those of an earlier run included."""

    done: int
    rows: int
    verdict: Verdict


@dataclass(frozen=True)
class Distilled:
    """What came of it.

    Attributes:
        task: the task's name.
        teacher: the teacher's name or address.
        output: the file of training rows.
        rows: how many were asked.
        resumed: how many of them an earlier run had asked.
        verdicts: how many replies were right, wrong, without an answer and cut off.
        kept: rows in the file.
    """

    task: str
    teacher: str
    output: str
    rows: int
    resumed: int
    verdicts: dict[str, int]
    kept: int

    def describe(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return asdict(self)


def questions(task: Task, split: Split, data: str | None, limit: int | None) -> list[Row]:
    """The rows to ask: with `instruction` and `answer`, whatever the split; an `output` they need not have.

    Raises:
        DataError: there are none, or they are malformed.
    """
    if data is None:
        return rows_of(task, split, None, limit or (split == "train" and task.train_rows) or _UNTOLD, 0).rows
    if not Path(data).is_dir():
        return rows_of(task, "test", data, 0, 0).rows[:limit]
    if split not in task.files:
        raise DataError(
            "no-data", f"task {task.name} has no {split} file in a folder", "give --data a file, or --split"
        )
    return rows_of(task, "test", str(Path(data) / task.files[split]), 0, 0).rows[:limit]


def distill(
    task: Task,
    rows: list[Row],
    output: Path,
    hire: Callable[[], Teacher],
    observe: Callable[[Answered], object] = lambda _: None,
    keep_wrong: bool = False,
    max_new_tokens: int = 512,
) -> Distilled:
    """Ask a teacher every row, and write a training file of the rationales: `instruction input output answer`.

    A run that was stopped goes on where it was, from the journal beside the output; the file is the same as without
    the stop.

    Args:
        task: reads and compares answers.
        rows: with `instruction` and `answer`.
        output: the file to write: a JSON list, or JSON Lines where it ends in `.jsonl`.
        hire: gives the teacher, once all else is checked.
        observe: called with each row as its reply is there.
        keep_wrong: keep wrong rationales and those without an answer too, as the paper did.
        max_new_tokens: how long a rationale may be.

    Raises:
        UsageError: the output is there already.
        DataError: a right answer that the task cannot read, or nothing to keep.
        ModelError: the teacher gives no reply.
        StorageError: a file cannot be written.
        ResumeError: the journal is of another run.
    """
    ledger = Ledger(output.parent / f"{output.name}.journal.jsonl")
    _check_free(output, ledger.path.exists())
    rationale.check(task, rows)
    teacher = hire()
    about = {"task": task.name, "rows": fingerprint(rows), "asked": rationale.ASKED, "max_new_tokens": max_new_tokens}
    identity = about | teacher.identity()
    with storing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    known = {said.row: said for said in _known(ledger, identity, len(rows))}
    _check_free(output, len(known) == len(rows))
    found: dict[int, Rationale] = {}
    for said in chain(known.values(), _said(task, rows, teacher, known, ledger, max_new_tokens)):
        found[said.row] = rationale.judged(task, rows[said.row], said)
        observe(Answered(len(found), len(rows), found[said.row].verdict))
    counts = Counter(one.verdict for one in found.values())
    verdicts = {str(verdict): counts[verdict] for verdict in VERDICTS}
    kept = list(_kept(rows, found, keep_wrong))
    if not kept:
        told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        hint = "--keep-wrong keeps the others too" if counts["wrong"] and not keep_wrong else "ask a stronger teacher"
        raise DataError("nothing-kept", f"no rationale of {len(rows)} is to be kept: {told}", hint)
    _write(output, kept)
    ledger.remove()
    return Distilled(task.name, str(identity["teacher"]), str(output), len(rows), len(known), verdicts, len(kept))


def _check_free(output: Path, own: bool) -> None:
    """Only a run whose journal is whole may have written the file."""
    if os.path.lexists(output) and not own:
        raise UsageError("output-exists", f"{output} is there already", "give another --output")
    check_writable(output.parent)


def _known(ledger: Ledger, identity: Mapping[str, Any], count: int) -> Iterator[Said]:
    """What an earlier run has recorded."""
    for number, entry in enumerate(ledger.open(identity), 2):
        try:
            said = Said(entry["row"], Reply(entry["text"], entry["finished"]), entry["second"])
            fine = 0 <= said.row < count and isinstance(said.first.text, str) and isinstance(said.second, str | None)
        except (KeyError, TypeError):
            fine = False
        if not fine:
            reason = f"{ledger.path}:{number}: no reply to a row"
            raise ResumeError("broken-journal", reason, "remove the journal to begin anew")
        yield said


def _said(
    task: Task, rows: Sequence[Row], teacher: Teacher, known: Mapping[int, Said], ledger: Ledger, limit: int
) -> Iterator[Said]:
    """Ask what is not known yet. A group that is known in part is asked as a whole, as it was before."""
    groups = teacher.groups([rationale.first(row) for row in rows])
    open_groups = [group for group in groups if not known.keys() >= set(group)]
    for replies in as_they_come(
        lambda group: _ask_named(task, rows, teacher, group, limit), open_groups, teacher.at_once
    ):
        new = [said for said in replies if said.row not in known]
        ledger.add([_entry(said) for said in new])
        yield from new


def _ask_named(task: Task, rows: Sequence[Row], teacher: Teacher, group: Sequence[int], limit: int) -> list[Said]:
    """As `_ask`; an error that is about one row names it."""
    try:
        return _ask(task, rows, teacher, group, limit)
    except ModelError as error:
        where = f"row {group[0] + 1}: " if len(group) == 1 else ""
        raise ModelError(error.code, f"{where}{error}", error.hint) from None


def _ask(task: Task, rows: Sequence[Row], teacher: Teacher, group: Sequence[int], limit: int) -> list[Said]:
    """The first question to each row of a group, and the second where the first has no answer."""
    firsts = dict(zip(group, teacher.reply([rationale.first(rows[row]) for row in group], limit), strict=True))
    open_rows = [row for row, reply in firsts.items() if rationale.unanswered(task, rows[row], reply)]
    dialogues = [rationale.second(rows[row], firsts[row].text) for row in open_rows]
    replies = teacher.reply(dialogues, rationale.SECOND_TOKENS) if dialogues else []
    seconds = {row: reply.text for row, reply in zip(open_rows, replies, strict=True)}
    return [Said(row, reply, seconds.get(row)) for row, reply in firsts.items()]


def _entry(said: Said) -> dict[str, Any]:
    return {"row": said.row, "text": said.first.text, "finished": said.first.finished, "second": said.second}


def _kept(rows: Sequence[Row], found: Mapping[int, Rationale], keep_wrong: bool) -> Iterator[dict[str, str]]:
    """The training rows, in the order of the rows and not of the replies."""
    dropped: tuple[Verdict, ...] = ("cut off",) if keep_wrong else ("cut off", "wrong", "no answer")
    for number, row in enumerate(rows):
        if found[number].verdict not in dropped and found[number].text:
            same = {"instruction": row["instruction"], "input": row.get("input", "")}
            yield {**same, "output": found[number].text, "answer": row["answer"]}


def _write(output: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write the file and see it on the disk."""
    if output.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n"
    write_text(output, text)
    with storing(output), output.open("rb") as stream:
        os.fsync(stream.fileno())
        if stream.read() != text.encode():
            raise StorageError("cannot-write", f"{output} does not hold what was written", "is the disk in order?")
