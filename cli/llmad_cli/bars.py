"""Bars: progress that is drawn while a block runs, on a terminal only."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TimeRemainingColumn


class Bars:
    """Bars of some columns and the time left; they go to the error stream, so that JSON stays clean."""

    def __init__(self, console: Console, *columns: ProgressColumn) -> None:
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
