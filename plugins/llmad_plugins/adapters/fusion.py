"""AdapterFusion: attention over adapters that are already trained, at the places where they sit.

    z_n = what adapter n makes of the place        s = softmax_n((W_q h) . (W_k z_n))        out = sum_n s_n W_v z_n

h (batch, length, width) is what the place makes alone. Pfeiffer et al., 2021 (arXiv 2005.00247), section 3.2. W_q and
W_k are N(0, 0.02) with zero biases, W_v starts as the identity plus 1e-6, as in the authors' code. The adapters stay
frozen where they were loaded so, and act through the fusion alone.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator

from llmad import AdapterModule, AdapterSpec, Site, Sites, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

Names = Annotated[str, Field(pattern=r"^[\w-]+(\+[\w-]+)+$")]


class Fusion(AdapterSpec):
    """Attention over trained adapters, `adapters=a+b` (Pfeiffer et al., 2021).

    Attributes:
        adapters: the names of the adapters, joined by `+`; they must be attached, and sit at `sites`.
    """

    name = "fusion"
    learning_rate: ClassVar[float] = 5e-5

    sites: Sites = Sites("attn.o", "mlp.down")
    adapters: Names = "a+b"

    @field_validator("adapters")
    @classmethod
    def _once(cls, adapters: str) -> str:
        if len(set(names := adapters.split("+"))) < len(names):
            raise ValueError(f"an adapter stands twice in {adapters}")
        return adapters

    def takes_over(self) -> list[str]:
        """The fused adapters act through the fusion alone."""
        return self.adapters.split("+")

    def build(self, site: Site) -> AdapterModule:
        """Three maps of the output's width."""
        return FusionLayer(site.out_features, self.takes_over())


class FusionLayer(AdapterModule):
    """(batch, length, width) to the same shape."""

    def __init__(self, width: int, names: list[str]) -> None:
        import torch
        from torch import nn

        super().__init__()
        self.names = names
        self.query, self.key = self.linear(width, width), self.linear(width, width)
        self.value = self.linear(width, width, bias=False)
        for layer in (self.query, self.key):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.value.weight.fill_(1e-6).fill_diagonal_(1.0)

    def begin(self) -> None:
        """Refuse names that are not attached at this place."""
        for name in self.names:
            self.beside(name)

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """What the adapters make of the place, weighted at each position; the place itself is asked once."""
        import torch

        h = base(x)

        def known(y: "Tensor") -> "Tensor":
            return h if y is x else base(y)

        views = torch.stack([self.beside(name)(known, x) for name in self.names], dim=-2)
        scores = (self.query(h)[..., None, :] * self.key(views)).sum(-1, keepdim=True)  # (..., adapters, 1)
        fused: Tensor = (scores.softmax(-2) * self.value(views)).sum(-2)
        return fused


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """AdapterFusion."""
    return [Fusion]
