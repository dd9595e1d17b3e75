"""Update: a low-rank update of a linear map's output, for a run of its tokens."""

from typing import NamedTuple

from torch import Tensor

from llmad.dropped import Drop


class Update(NamedTuple):
    """An update of the tokens from `start` to before `stop`, counted through all leading sizes of the input.

    Attributes:
        start: the first token.
        stop: the token behind the last; None where the last is that of the input.
        down: (r, in_features).
        up: (out_features, r).
        scale: of the update.
        drop: which of the input is dropped.
    """

    start: int
    stop: int | None
    down: Tensor
    up: Tensor
    scale: float
    drop: Drop | None

    def of(self, flat: Tensor) -> Tensor:
        """The update's tokens of all, (tokens, width)."""
        whole = self.stop is None or self.stop - self.start == len(flat)
        return flat if whole else flat[self.start : self.stop]
