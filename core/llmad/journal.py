"""Journal: the answers of one model to one task as they are found, so that an evaluation goes on where it was killed.

The file is `TASK.jsonl.partial`: a line that says what the answers are of, then one line a batch. It is kept until
the whole evaluation is over.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmad.files import storing, write_text
from llmad.score import Answer


class Journal:
    """Answers so far, by row.

    Args:
        path: of the file of answers that it becomes.
        identity: what the answers are of; a journal of something else is begun anew.

    Raises:
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        self.answers: dict[int, Answer] = {}
        self.seconds = 0.0
        head = json.dumps({"identity": identity}).encode()
        with storing(self.partial):
            known = self.partial.read_bytes().split(b"\n")[:-1] if self.partial.exists() else []
            self.partial.parent.mkdir(parents=True, exist_ok=True)
        kept = [head, *(self._whole(known[1:]) if known[:1] == [head] else [])]
        write_text(self.partial, b"".join(line + b"\n" for line in kept).decode())

    def add(self, answers: Sequence[Answer], seconds: float) -> None:
        """Keep a batch's answers, and the seconds that they took.

        Raises:
            StorageError: they cannot be written.
        """
        self._take(answers, seconds)
        entry = {"seconds": seconds, "answers": [answer.describe() for answer in answers]}
        with storing(self.partial), self.partial.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def ordered(self) -> list[Answer]:
        """The answers in the order of the rows."""
        return [self.answers[index] for index in sorted(self.answers)]

    def close(self, folders: Sequence[Path]) -> None:
        """Write the file of answers to each folder, one JSON line each, and take the journal away.

        Raises:
            StorageError: it cannot be written.
        """
        lines = [json.dumps(answer.describe(), ensure_ascii=False) + "\n" for answer in self.ordered()]
        for folder in folders:
            with storing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / self.path.name, "".join(lines))
        with storing(self.partial):
            self.partial.unlink(missing_ok=True)

    def _take(self, answers: Sequence[Answer], seconds: float) -> None:
        self.answers.update((answer.index, answer) for answer in answers)
        self.seconds += seconds

    def _whole(self, lines: Sequence[bytes]) -> Iterator[bytes]:
        """Take in what was written before, up to a line that a kill or a disk has spoilt."""
        for line in lines:
            try:
                entry = json.loads(line)
                self._take([Answer(**answer) for answer in entry["answers"]], float(entry["seconds"]))
            except (ValueError, TypeError, KeyError):
                return
            yield line
