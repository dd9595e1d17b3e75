"""DoRA: a low-rank update of the weight's direction, and a learned magnitude for each output.

    h = m * (W + V) x / ||W + V|| + b        V = (alpha / r) B A,  A (r, in_features), B (out_features, r)

Liu et al., 2024 (arXiv 2402.09353), section 4.1; the norm is that of each output's row, and no gradient goes through
it (section 4.3). m (out_features,) starts as ||W|| and B at zero, so a fresh adapter changes nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from llmad import AdapterModule, AdapterSpec, ModelError, Site, hookimpl
from llmad_plugins.adapters.low_rank import LowRank
from llmad_plugins.adapters.peft_low_rank import PeftLowRank

if TYPE_CHECKING:
    from torch import Tensor


_TINY = 1e-37  # a row of zeros has a norm all the same


class DoRA(PeftLowRank):
    """Low-rank update of the direction, and a magnitude (Liu et al., 2024)."""

    name = "dora"
    learning_rate: ClassVar[float] = 3e-4
    own_tensors: ClassVar[dict[str, str]] = {"magnitude": "lora_magnitude_vector"}
    own_config: ClassVar[dict[str, bool]] = {"use_dora": True}

    def build(self, site: Site) -> AdapterModule:
        """A pair A, B and a magnitude."""
        if site.before:
            raise ModelError(
                "misfit", f"{self.name} scales a weight; {site.label} has none", "place it without @before"
            )
        return DoRALayer(site, self)


class DoRALayer(LowRank):
    """x (batch, length, in_features) to (batch, length, out_features)."""

    reads_weight = True

    def __init__(self, site: Site, spec: DoRA) -> None:
        import torch

        super().__init__(site, spec)
        self.magnitude = torch.nn.Parameter(torch.ones(site.out_features))

    def begin(self) -> None:
        """The magnitude starts as the norm of the weight's rows."""
        import torch

        with torch.no_grad():
            self.magnitude.copy_(self.norm())

    def norm(self) -> "Tensor":
        """The norm of each row of W + V, (out_features,) in float32 or wider, without making V."""
        import torch

        weight, down, up = self.host_weight(), self.down.weight.detach(), self.up.weight.detach()
        wide = torch.promote_types(weight.dtype, torch.float32)
        crossed = torch.nn.functional.linear(weight, down.to(weight.dtype)).to(wide)  # W A^T (out_features, r)
        square = torch.linalg.vector_norm(weight, dim=1, dtype=wide).square()
        square = square + 2 * self.scale * (crossed * up).sum(1)
        square = square + self.scale**2 * ((up @ (down @ down.T)) * up).sum(1)
        norm: Tensor = square.clamp(min=_TINY).sqrt()
        return norm

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output, turned and stretched; dropout is on the whole update, as in the authors' code."""
        h, dropped = base(x), self.dropped(x)
        stretch = (self.magnitude / self.norm() - 1).to(h.dtype)  # beside one, half precision has few digits
        plain = base(dropped) if self.training and self.dropout else h
        if (bias := self.host_bias()) is not None:
            plain = plain - bias.to(h.dtype)
        update: Tensor = self.up(self.down(dropped))
        return h + stretch * plain + (1 + stretch) * (self.scale * update)

    def fold(self, weight: "Tensor", bias: "Tensor | None") -> "tuple[Tensor, Tensor | None]":
        """The turned and stretched weight."""
        turned = weight + self.delta().to(weight)
        norm = turned.square().sum(1).clamp(min=_TINY).sqrt()
        return turned * (self.magnitude.to(weight) / norm)[:, None], bias


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """DoRA."""
    return [DoRA]
