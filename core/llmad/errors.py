"""Errors that are the user's to mend: one line (what and where), one hint (the cure), a code, an exit code."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar


class LlmadError(Exception):
    """Base of every error that is the user's to mend.

    Attributes:
        code: a stable, greppable name such as `unknown-adapter`.
        hint: what to do about it; may be empty.
        exit_code: what the command line exits with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class LlmadWarning(UserWarning):
    """What the user should know of, and nothing stops for."""


class UsageError(LlmadError):
    """A command, option, recipe, spec or selector that cannot be meant so."""

    exit_code = 2


class DataError(LlmadError):
    """Rows that are missing, malformed or empty."""

    exit_code = 3


class ModelError(LlmadError):
    """A model, adapter directory or plugin that does not fit or is broken."""

    exit_code = 4


class DivergedError(LlmadError):
    """A loss, gradient or parameter that is no longer finite."""

    exit_code = 5


class StorageError(LlmadError):
    """A file or directory that cannot be written or read."""

    exit_code = 6


class ResumeError(LlmadError):
    """A checkpoint that belongs to another run."""

    exit_code = 7


class OutOfMemoryError(LlmadError):
    """The memory of the accelerator or of the machine is too small for what was asked."""

    exit_code = 8


class RankError(LlmadError):
    """Another process of a run in several that is gone, or has come to something else."""

    exit_code = 9


def nearest(name: str, known: list[str]) -> str:
    """A hint that names the nearest known names first, then the rest."""
    if not known:
        return "there is none to choose from"
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    rest = sorted(set(known) - set(close))
    listing = f"there is: {', '.join(rest[:20])}{', ...' if len(rest) > 20 else ''}" if rest else ""
    return "; ".join(part for part in (f"did you mean {' or '.join(close)}?" if close else "", listing) if part)


def together(problems: Sequence[LlmadError]) -> LlmadError:
    """One error for several, a line each with the nearest names; the error itself where there is one."""
    if len(problems) == 1:
        return problems[0]
    hints = [problem.hint.partition(";")[0] for problem in problems]  # the full lists are too long here
    lines = [f"{problem}{f' ({hint})' if hint else ''}" for problem, hint in zip(problems, hints, strict=True)]
    return UsageError("bad-recipe", "\n".join(lines))
