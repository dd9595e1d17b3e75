"""LoRA: a low-rank update beside a linear map.

    h = W x + (alpha / r) B A dropout(x)        A (r, in_features), B (out_features, r)

Hu et al., 2021 (arXiv 2106.09685), section 4.1. B starts at zero, so a fresh adapter changes nothing; A starts
Kaiming-uniform as in the authors' code (`init=zero`) or N(0, 0.02) (`init=paper`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from llmad import AdapterModule, AdapterSpec, Site, hookimpl
from llmad_plugins.adapters.low_rank import LowRank
from llmad_plugins.adapters.peft_low_rank import PeftLowRank

if TYPE_CHECKING:
    from torch import Tensor


class LoRA(PeftLowRank):
    """Low-rank update of a linear map (Hu et al., 2021)."""

    name = "lora"
    learning_rate: ClassVar[float] = 3e-4

    def build(self, site: Site) -> AdapterModule:
        """One pair A, B."""
        return LoRALayer(site, self)


class LoRALayer(LowRank):
    """x (batch, length, in_features) to (batch, length, out_features), through r dimensions."""

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output plus the update."""
        return self.low_rank(base, x, *self.as_low_rank())

    def as_low_rank(self) -> tuple[Any, Any, float, float]:
        """A, B, the scale, and the share that is dropped."""
        return self.down, self.up, self.scale, self.dropout * self.training


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """LoRA."""
    return [LoRA]
