"""Writing: what is to be kept goes to the disk one after the other, beside the steps where a device makes them."""

import warnings
from collections.abc import Callable
from threading import Thread
from types import TracebackType

from llmad.errors import LlmadWarning
from llmad.stopping import Stopped


class Writing:
    """Writes what it is given, in order; after the block all of it is written.

    Where the block is left because the process has to end at once, what is not yet written is left as a kill leaves it.

    Args:
        beside: in a thread of its own, while the caller goes on. A CPU that makes the steps has no time to spare.
    """

    def __init__(self, beside: bool) -> None:
        self.beside = beside
        self._going: _Job | None = None

    def put(self, write: Callable[[], object]) -> None:
        """Have something written, once what was given before is.

        Raises:
            Exception: what the one before has raised, or this one if nothing is done beside.
        """
        self.wait()
        if not self.beside:
            write()
            return
        self._going = _Job(write)
        self._going.start()

    def wait(self) -> None:
        """Return when all is written.

        Raises:
            Exception: what it has raised.
        """
        going, self._going = self._going, None
        if going is not None:
            going.join()
            if going.error is not None:
                raise going.error

    def __enter__(self) -> "Writing":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif self._going is not None and not isinstance(error, Stopped):
            self._going.join()
            if self._going.error is not None:  # what ended the block is told by itself
                warnings.warn(f"nor could a save be finished: {self._going.error}", LlmadWarning, stacklevel=2)


class _Job(Thread):
    def __init__(self, write: Callable[[], object]) -> None:
        super().__init__(name="writing", daemon=True)
        self.write = write
        self.error: BaseException | None = None

    def run(self) -> None:
        """Write, and keep an error for who waits."""
        try:
            self.write()
        except BaseException as error:
            self.error = error
