"""Invertible adapter: a coupling of the embeddings' two halves, and its exact inverse before the head.

    after the embedding        y1 = x1 + F(x2)        y2 = x2 + G(y1)
    before the head            x2 = y2 - G(y1)        x1 = y1 - F(x2)
    F(z), G(z) = W_up act(W_down z + b_down) + b_up        W_down (m, d), W_up (d, m)

d is half the width and m = d / reduction_factor; F and G, each with weights of its own, are the same at both places.

Pfeiffer et al., 2020 (MAD-X, arXiv 2005.00052), section 3, "Invertible Adapters"; the coupling is NICE's (Dinh et al.,
2015, arXiv 1410.8516, section 3.2). W_up and b_up start at zero (`init=zero`), or all weights N(0, 0.02) with zero
biases as in the authors' code (`init=paper`).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from llmad import AdapterModule, AdapterSpec, ModelError, Site, Sites, UsageError, hookimpl
from llmad_plugins.adapters.bottleneck import Activation

if TYPE_CHECKING:
    from torch import Tensor, nn

_PAIR = {("embed", False), ("head", True)}


class Invertible(AdapterSpec):
    """Coupling of the embeddings, undone before the head (MAD-X; Pfeiffer et al., 2020).

    It sits at both places or not at all: one alone has no inverse. Stacked on another adapter there it is still undone
    exactly; side by side with one (`a+b`) it is not, as a sum of updates is no composition.

    Attributes:
        reduction_factor: how many times narrower than half the embeddings the middle of F and G is.
        activation: the non-linearity of F and G.
        init: `zero` (a fresh adapter changes nothing) or `paper` (N(0, 0.02)).
    """

    name = "invertible"
    fits: ClassVar[tuple[str, ...]] = ("embed", "head")
    learning_rate: ClassVar[float] = 1e-4

    sites: Sites = Sites("embed", "head@before")
    reduction_factor: PositiveInt = 2
    activation: Activation = "relu"
    init: Literal["zero", "paper"] = "zero"

    def assemble(self, sites: Sequence[Site]) -> dict[Site, AdapterModule]:
        """One coupling at both places."""
        if {(site.role, site.before) for site in sites} != _PAIR:
            raise UsageError(
                "misfit",
                f"invertible sits at embed and head@before together, not at {', '.join(site.label for site in sites)}",
                "leave sites at its default",
            )
        widths = {site.out_features for site in sites}
        if len(widths) > 1:
            raise ModelError("misfit", f"the embedding and the head differ in width: {' and '.join(map(str, widths))}")
        (width,) = widths
        if width % 2:
            raise ModelError("odd-width", f"a width of {width} has no two halves that invertible could couple")
        first, second = (self._network(width // 2) for _ in range(2))
        return {site: CouplingLayer(first, second, self.activation, undo=site.before) for site in sites}

    def _network(self, half: int) -> "nn.ModuleList":
        """The two linear maps of F or G."""
        from torch import nn

        middle = half // self.reduction_factor
        if not middle:
            raise UsageError("bad-option", f"reduction_factor {self.reduction_factor} leaves nothing of {half}")
        down, up = AdapterModule.linear(half, middle), AdapterModule.linear(middle, half)
        if self.init == "paper":
            for layer in (down, up):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        else:
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
        return nn.ModuleList([down, up])


class CouplingLayer(AdapterModule):
    """(batch, length, width) to the same shape, there or, with `undo`, back."""

    def __init__(self, first: "nn.ModuleList", second: "nn.ModuleList", activation: str, undo: bool) -> None:
        super().__init__()
        self.first, self.second, self.undo = first, second, undo  # F and G
        self.middle = self.activation(activation)

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The coupled embeddings; or, before the head, where `base` changes nothing, the hidden states uncoupled."""
        import torch

        one, two = base(x).chunk(2, dim=-1)
        if self.undo:
            two = two - self._through(self.second, one)
            one = one - self._through(self.first, two)
        else:
            one = one + self._through(self.first, two)
            two = two + self._through(self.second, one)
        return torch.cat((one, two), dim=-1)

    def _through(self, network: "nn.ModuleList", x: "Tensor") -> "Tensor":
        """F or G; the weights go to x, as a model may have its embedding and its head on different devices."""
        from torch.nn.functional import linear

        weights, biases = zip(*((layer.weight.to(x), layer.bias.to(x)) for layer in network), strict=True)
        middle = self.middle(linear(x, weights[0], biases[0]))
        return linear(middle, weights[1], biases[1])


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """The invertible adapter."""
    return [Invertible]
