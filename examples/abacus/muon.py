"""Muon (Jordan et al., 2024): momentum whose matrix is replaced by the nearest orthogonal one.

Unlike `torch.optim.Muon` it stays in float32, since bfloat16 products are very slow on most CPUs, and it
treats all matrices of one shape together.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM = 0.95


class Muon:
    """Updates matrices; set `learning_rate` before every step."""

    def __init__(self, matrices: Iterable[Tensor]) -> None:
        self.learning_rate = 0.0
        self.groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            self.groups[matrix.shape].append(matrix)
        self.momenta = {shape: torch.zeros(len(same), *shape) for shape, same in self.groups.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix from its gradient."""
        for (rows, columns), same in self.groups.items():
            gradients = torch.stack([matrix.grad for matrix in same])
            momentum = self.momenta[torch.Size((rows, columns))].lerp_(gradients, 1 - MOMENTUM)
            updates = orthogonal(gradients.lerp(momentum, MOMENTUM)) * max(1, rows / columns) ** 0.5
            for matrix, update in zip(same, updates, strict=True):
                matrix.sub_(update, alpha=self.learning_rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return about U V^T for U S V^T of shape (count, rows, columns), by Newton-Schulz iterations."""
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonal(matrices.mT).mT
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.775 * square) @ x
    return x
