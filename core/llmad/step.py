"""Step: what one optimizer step did, and one that the device may still be at."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

from llmad.errors import DivergedError
from llmad.late import Late


@dataclass(frozen=True)
class Step:
    """What one optimizer step did.

    Attributes:
        step: number, counted from 1.
        steps: how many there will be.
        epoch: passes over the rows so far.
        loss: mean over the step's trained tokens, in nats.
        learning_rate: used in this step.
        grad_norm: of the adapter's gradients, before clipping; None where a float16 base overflowed and the step was
            skipped, after which its gradients are scaled down.
        tokens: real tokens of the step, padding left out.
        trained_tokens: of these, the learnt ones.
        seconds: wall time of the step; on an accelerator, until it was launched and the one before was over.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float | None
    tokens: int
    trained_tokens: int
    seconds: float

    def describe(self) -> dict[str, Any]:
        """The step as plain data, for a log."""
        return asdict(self)


@dataclass(frozen=True)
class Underway:
    """A step that the device may still be at.

    Attributes:
        planned: what is known of it beforehand: all but its loss and norm.
        rows: of the data, that it learns from.
        called: what an error says of its adapter first.
        scaled: its loss was scaled, and it is skipped where a gradient overflows.
        late: its gradients' norm, its loss, the norm of the parameters that it leaves, and the scale of its loss.
    """

    planned: Step
    rows: Sequence[int]
    called: str
    scaled: bool
    late: Late

    @property
    def over(self) -> bool:
        """Whether the device is done with it."""
        return self.late.arrived

    def done(self) -> Step:
        """What it did; waits until the device is done with it.

        Raises:
            DivergedError: a loss, a gradient or a parameter is not finite.
        """
        norm, loss, left, scale = self.late.read()
        overflowed = self.scaled and isfinite(loss) and not isfinite(norm) and scale > 1
        if not overflowed:
            self._check(isfinite(loss) and isfinite(norm), f"loss {loss}, gradient norm {norm}")
        self._check(isfinite(left), "a parameter is not finite")
        return replace(self.planned, loss=loss, grad_norm=None if overflowed else norm)

    def _check(self, finite: bool, reason: str) -> None:
        if not finite:
            rows = sorted(self.rows)
            where = f"step {self.planned.step}, rows {rows[:8]}{'...' if len(rows) > 8 else ''}"
            raise DivergedError("diverged", f"{self.called}{where}: {reason}", "lower learning_rate")
