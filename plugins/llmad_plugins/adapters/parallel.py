"""Parallel adapter: a bottleneck beside a place.

    out = base(x) + scaling * (W_up dropout(act(W_down x + b_down)) + b_up)

He et al., 2021 (arXiv 2110.04366), section 3.2; LLM-Adapters (arXiv 2304.01933), section 2.2, equation 4.
W_up and b_up start at zero (`init=zero`), or all weights N(0, 0.02) with zero biases (`init=paper`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from llmad import AdapterModule, AdapterSpec, Site, Sites, hookimpl
from llmad_plugins.adapters.bottleneck import Bottleneck, BottleneckOptions

if TYPE_CHECKING:
    from torch import Tensor


class Parallel(BottleneckOptions):
    """Bottleneck beside a place (He et al., 2021)."""

    name = "parallel"
    learning_rate: ClassVar[float] = 1e-4

    sites: Sites = Sites("attn.q", "attn.k", "attn.v")

    def build(self, site: Site) -> AdapterModule:
        """A bottleneck from the input's width to the output's."""
        return ParallelLayer(site.in_features, site.out_features, self)


class ParallelLayer(Bottleneck):
    """x (batch, length, in_features) to (batch, length, out_features)."""

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output, and what the bottleneck makes of its input."""
        return self.added(base(x), x)


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """The parallel adapter."""
    return [Parallel]
