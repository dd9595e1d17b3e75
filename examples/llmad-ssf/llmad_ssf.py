"""SSF: learned factors and shifts of the features that linear maps put out.

    h = gamma * (W x + b) + beta        gamma, beta (out_features,)

Lian et al., 2022 (arXiv 2210.08823), section 3.2. gamma starts at one and beta at zero, so a fresh adapter changes
nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmad import AdapterModule, AdapterSpec, Site, Sites, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class SSF(AdapterSpec):
    """Learned factors and shifts of features (Lian et al., 2022)."""

    name = "ssf"
    learning_rate = 1e-2
    rate_falls_with_width = False
    sites: Sites = Sites("linear")

    def build(self, site: Site) -> AdapterModule:
        """One factor and one shift for each output."""
        return ScaleAndShift(site.out_features)


class ScaleAndShift(AdapterModule):
    """(batch, length, width) to the same shape."""

    def __init__(self, width: int) -> None:
        import torch

        super().__init__()
        self.gamma = torch.nn.Parameter(torch.ones(width))
        self.beta = torch.nn.Parameter(torch.zeros(width))

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output, scaled and shifted."""
        h = base(x)
        return h * self.gamma.to(h.dtype) + self.beta.to(h.dtype)


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """SSF."""
    return [SSF]
