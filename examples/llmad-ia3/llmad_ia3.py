"""IA3: learned factors on the keys, the values and the inside of the MLP.

    k = l_k * (W_k x)        v = l_v * (W_v x)        mlp = W_down (l_ff * act(...))

Liu et al., 2022 (arXiv 2205.05638), section 3.3. All factors start at one, so a fresh adapter changes nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmad import AdapterModule, AdapterSpec, Site, Sites, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class IA3(AdapterSpec):
    """Learned factors on keys, values and the MLP's inside (Liu et al., 2022)."""

    name = "ia3"
    learning_rate = 1e-2
    rate_falls_with_width = False
    sites: Sites = Sites("attn.k", "attn.v", "mlp.down@before")

    def build(self, site: Site) -> AdapterModule:
        """One factor for each output; `@before` makes the outputs those of the input."""
        return Factors(site.out_features)


class Factors(AdapterModule):
    """(batch, length, width) to the same shape."""

    def __init__(self, width: int) -> None:
        import torch

        super().__init__()
        self.factors = torch.nn.Parameter(torch.ones(width))

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output, each feature by its factor."""
        return base(x) * self.factors.to(x.dtype)


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """IA3."""
    return [IA3]
