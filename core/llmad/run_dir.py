"""The run directory: everything that a run leaves behind.

recipe.json       the recipe as it was resolved        adapter/       the trained adapter
metrics.jsonl     one line every few steps             checkpoints/   to go on from
loss.png          the loss over the steps              evaluation/    answers, one JSON line each, and scores
README.md         the model card                       status.json    running, done, stopped or failed, and why

While a process writes there, `.lock` keeps others out.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmad import lock
from llmad.errors import LlmadError, StorageError, UsageError
from llmad.files import check_writable, is_leftover, make, storing, sweep, write_json, write_text
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
        """Whether anything is there; what a killed process has left unfinished is nothing."""
        return self.path.is_dir() and any(
            path.name != lock.NAME and not is_leftover(path) for path in self.path.iterdir()
        )

    def status(self) -> str:
        """How the run stands; empty where that cannot be read."""
        known = _read(self.path / "status.json")
        return str(known.get("status", ""))

    def told(self) -> dict[str, Any]:
        """The recipe that the run was last told; empty where that cannot be read."""
        return _read(self.recipe)

    def set_status(self, status: str, **more: Any) -> None:
        """Say how the run stands."""
        write_json(self.path / "status.json", {"status": status, **more})

    def log(self, entry: dict[str, Any]) -> None:
        """Add a line to the metrics."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The metrics so far; without a last line that a killed run left half written.

        Raises:
            StorageError: a line is damaged, or the file cannot be read.
        """
        with storing(self.metrics):
            text = self.metrics.read_bytes() if self.metrics.exists() else b""
        return [self._entry(line, number) for number, line in enumerate(text.split(b"\n")[:-1], 1)]

    def _entry(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(line)
            int(entry["step"])
        except (ValueError, TypeError, KeyError, RecursionError):
            hint = "mend the line, or start again in another --output"
            raise StorageError("broken-metrics", f"{self.metrics}:{number}: no line of metrics", hint) from None
        return entry

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
        raise _taken(str(output))
    check_writable(run.path)
    return run


@contextmanager
def opened(run: RunDir, recipe: dict[str, Any], new: bool = True) -> Iterator[RunDir]:
    """Make the directory and keep its status: running inside the block, then done, stopped, or failed with the error.

    A new one is locked inside the block; one to go on with is held already.

    Raises:
        StorageError: it cannot be written, or another process has it.
        UsageError: another process has filled it since it was chosen.
    """
    make(run.path)
    with lock.locked(run.path) if new else nullcontext():
        if new and run.exists():
            raise _taken(str(run.path))
        with _told(run):
            for folder in (run.path, run.checkpoints, run.evaluation):
                sweep(folder)
            write_json(run.recipe, recipe)
            run.set_status("running")
            yield run
            run.set_status("done")


@contextmanager
def _told(run: RunDir) -> Iterator[None]:
    """What ends the block early becomes the status; without a recipe there is no run yet."""
    try:
        with storing(run.path):
            yield
    except Stopped as stop:
        with suppress(StorageError):
            run.set_status("stopped", message=str(stop))
        raise
    except BaseException as error:
        code = error.code if isinstance(error, LlmadError) else type(error).__name__
        with suppress(StorageError):  # the disk may be what failed; the error itself is what matters
            if run.recipe.exists():
                run.set_status("failed", code=code, message=str(error))
        raise


def _taken(output: str) -> UsageError:
    return UsageError("output-exists", f"{output} is not empty", "give another --output, or go on with --resume auto")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
