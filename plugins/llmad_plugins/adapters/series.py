"""Series adapter: a bottleneck after a place, before the residual is added.

    h = base(x)        out = h + scaling * (W_up dropout(act(W_down h + b_down)) + b_up)

Houlsby et al., 2019 (arXiv 1902.00751), section 2.1; LLM-Adapters (arXiv 2304.01933), section 2.2, equation 3.
W_up and b_up start at zero (`init=zero`), or all weights N(0, 0.02) with zero biases (`init=paper`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from llmad import AdapterModule, AdapterSpec, Site, Sites, hookimpl
from llmad_plugins.adapters.bottleneck import Bottleneck, BottleneckOptions

if TYPE_CHECKING:
    from torch import Tensor


class Series(BottleneckOptions):
    """Bottleneck after the attention and the MLP output (Houlsby et al., 2019)."""

    name = "series"
    learning_rate: ClassVar[float] = 1e-4

    sites: Sites = Sites("attn.o", "mlp.down")

    def build(self, site: Site) -> AdapterModule:
        """A bottleneck of the output's width."""
        return SeriesLayer(site.out_features, site.out_features, self)


class SeriesLayer(Bottleneck):
    """h (batch, length, out_features) to the same shape."""

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output, and what the bottleneck makes of it."""
        h = base(x)
        return self.added(h, h)


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """The series adapter."""
    return [Series]
