"""The run directory: everything that a run leaves behind.

recipe.json       the recipe as it was resolved        adapter/       the trained adapter
metrics.jsonl     one line every few steps             checkpoints/   to go on from
loss.png          the loss over the steps              evaluation/    answers, one JSON line each, and scores
README.md         the model card                       status.json    running, done, stopped or failed, and why
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmad.errors import LlmadError, StorageError, UsageError
from llmad.files import check_writable, storing, write_json, write_text
from llmad.stopping import Stopped


@dataclass(frozen=True)
class RunDir:
    """The paths of a run."""

    path: Path

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.path / "adapter"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """Answers and scores."""
        return self.path / "evaluation"

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.json"

    @property
    def metrics(self) -> Path:
        """One line every few steps."""
        return self.path / "metrics.jsonl"

    def exists(self) -> bool:
        """Whether anything is there."""
        return self.path.is_dir() and any(self.path.iterdir())

    def set_status(self, status: str, **more: Any) -> None:
        """Say how the run stands."""
        write_json(self.path / "status.json", {"status": status, **more})

    def log(self, entry: dict[str, Any]) -> None:
        """Add a line to the metrics."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The metrics so far; without a last line that a killed run left half written."""
        if not self.metrics.exists():
            return []
        whole, _, _ = self.metrics.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def rewind(self, step: int) -> None:
        """Forget the metrics of later steps: they will be made again."""
        kept = [json.dumps(entry) + "\n" for entry in self.read_metrics() if entry["step"] <= step]
        write_text(self.metrics, "".join(kept))


def choose(output: str | None, stem: str) -> RunDir:
    """The directory of a new run: the one asked for, which must be free, or a free name under `runs`.

    Raises:
        UsageError: something is there already.
        StorageError: it cannot be made.
    """
    names = (f"{stem}{f'-{number}' if number > 1 else ''}" for number in range(1, 100_000))
    runs = [RunDir(Path(output))] if output is not None else (RunDir(Path("runs") / name) for name in names)
    run = next((run for run in runs if not run.exists()), None)
    if run is None:
        raise UsageError(
            "output-exists",
            f"{output} is not empty",
            "give another --output, or go on with --resume auto",
        )
    check_writable(run.path)
    return run


@contextmanager
def opened(run: RunDir, recipe: dict[str, Any]) -> Iterator[RunDir]:
    """Make the directory and keep its status: running inside the block, then done, stopped, or failed with the error.

    Raises:
        StorageError: it cannot be written.
    """
    with storing(run.path):
        run.path.mkdir(parents=True, exist_ok=True)
        write_json(run.recipe, recipe)
        run.set_status("running")
    try:
        with storing(run.path):
            yield run
    except Stopped as stop:
        with suppress(StorageError):
            run.set_status("stopped", message=str(stop))
        raise
    except BaseException as error:
        code = error.code if isinstance(error, LlmadError) else type(error).__name__
        with suppress(StorageError):  # the disk may be what failed; the error itself is what matters
            run.set_status("failed", code=code, message=str(error))
        raise
    run.set_status("done")
