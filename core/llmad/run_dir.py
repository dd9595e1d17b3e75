"""The run directory: everything that a run leaves behind.

recipe.json       the recipe as it was resolved        adapter/       the trained adapter
metrics.jsonl     one line every few steps             checkpoints/   to go on from
loss.png          the loss over the steps              evaluation/    answers, one JSON line each, and scores
README.md         the model card                       status.json    running, done or failed, and why
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmad.errors import LlmadError, StorageError, UsageError
from llmad.files import write_json, write_text


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
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    def set_status(self, status: str, **more: Any) -> None:
        """Say how the run stands."""
        write_json(self.path / "status.json", {"status": status, **more})

    def log(self, entry: dict[str, Any]) -> None:
        """Add a line to the metrics."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The metrics so far."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def rewind(self, step: int) -> None:
        """Forget the metrics of later steps: they will be made again."""
        kept = [json.dumps(entry) + "\n" for entry in self.read_metrics() if entry["step"] <= step]
        write_text(self.metrics, "".join(kept))


def choose(output: str | None, stem: str) -> RunDir:
    """The directory of a new run: the one asked for, which must be free, or a free name under `runs`.

    Raises:
        UsageError: something is there already.
    """
    if output is not None:
        run = RunDir(Path(output))
        if run.exists():
            raise UsageError(
                "output-exists",
                f"{output} is not empty",
                "give another --output, or go on with --resume auto",
            )
        return run
    names = (f"{stem}{f'-{number}' if number > 1 else ''}" for number in range(1, 100_000))
    return next(run for name in names if not (run := RunDir(Path("runs") / name)).exists())


@contextmanager
def opened(run: RunDir, recipe: dict[str, Any]) -> Iterator[RunDir]:
    """Make the directory and keep its status: running inside the block, then done, or failed with the error.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        write_json(run.recipe, recipe)
        run.set_status("running")
    except OSError as error:
        raise StorageError("cannot-write", f"{run.path}: {error.strerror or error}") from None
    try:
        yield run
    except BaseException as error:
        code = error.code if isinstance(error, LlmadError) else type(error).__name__
        run.set_status("failed", code=code, message=str(error))
        raise
    run.set_status("done")
