"""Late: numbers on their way from a device to the host, which goes on meanwhile.

To ask a device for a number is to wait for all that it was ever told to do. So the numbers of a step are sent as soon
as they are known there, and read when the next step is under way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_BESIDE = {"cuda", "xpu"}  # devices that send while they compute; the others are waited for


class Late:
    """Scalars, sent from the device of the first one; in float32.

    Args:
        numbers: each a tensor of one element.
    """

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        where = numbers[0].device
        there = torch.stack([number.detach().to(where, torch.float32) for number in numbers])
        self._sent: torch.Event | None = None
        if where.type in _BESIDE:
            self._there = torch.empty_like(there, device="cpu", pin_memory=True).copy_(there, non_blocking=True)
            self._sent = torch.Event(where)
            self._sent.record(torch.accelerator.current_stream(where))
        else:
            self._there = there.cpu()

    @property
    def arrived(self) -> bool:
        """Whether reading them takes no waiting."""
        return self._sent is None or self._sent.query()

    def read(self) -> list[float]:
        """The numbers, once they are there."""
        if self._sent is not None:
            self._sent.synchronize()
        found: list[float] = self._there.tolist()
        return found
