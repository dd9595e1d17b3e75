"""Stopping: a signal lets the step end and the run be saved; a second one ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(SystemExit):
    """A signal asked the process to end: what is open is closed on the way out, and the exit code is 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


@dataclass
class Watch:
    """Which signal has asked the run to end, if any has."""

    asked: int | None = None


def stop(number: int, _: FrameType | None = None) -> NoReturn:
    """End the process now.

    Raises:
        Stopped: always.
    """
    raise Stopped(number)


@contextmanager
def watching() -> Iterator[Watch]:
    """Within the block the first signal is noted and the second one raises Stopped.

    Elsewhere than in the main thread, where signals cannot be taken, nothing is noted.
    """
    watch = Watch()

    def note(number: int, _: FrameType | None) -> None:
        if watch.asked is not None:
            stop(number)
        watch.asked = number

    with _handled(note):
        yield watch


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block every signal raises Stopped."""
    with _handled(stop):
        yield


@contextmanager
def ending() -> Iterator[None]:
    """Within the block a signal ends the process as the system does: for a call that may never come back to Python."""
    with _handled(signal.SIG_DFL):
        yield


@contextmanager
def _handled(handler: "signal._HANDLER") -> Iterator[None]:
    """Take the signals that are not ignored, as `nohup` ignores one, and give them back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in SIGNALS if signal.getsignal(one) != signal.SIG_IGN}
    for one in before:
        signal.signal(one, handler)
    try:
        yield
    finally:
        for one, old in before.items():
            signal.signal(one, old)
