"""The bottleneck that the series and the parallel adapter share: down, non-linearity, up, scaling."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from llmad import AdapterModule, AdapterSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Activation = Literal["relu", "gelu", "silu", "tanh", "leaky_relu", "sigmoid", "linear"]


class BottleneckOptions(AdapterSpec):
    """The options of a bottleneck.

    Attributes:
        bottleneck: the width in the middle.
        activation: the non-linearity in the middle.
        scaling: a fixed factor, or `learned`: one trained number a site that starts at 1.
        dropout: the share of the middle that is dropped in training.
        init: `zero` (a fresh adapter changes nothing) or `paper` (N(0, 0.02)).
    """

    bottleneck: PositiveInt = 64
    activation: Activation = "relu"
    scaling: float | Literal["learned"] = 1.0
    dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["zero", "paper"] = "zero"


class Bottleneck(AdapterModule):
    """(batch, length, in_features) to (batch, length, out_features), through `bottleneck` dimensions."""

    scaling: "float | nn.Parameter"

    def __init__(self, in_features: int, out_features: int, options: BottleneckOptions) -> None:
        import torch
        from torch import nn

        super().__init__()
        self.down = self.linear(in_features, options.bottleneck)
        self.middle = self.activation(options.activation)
        self.dropout = nn.Dropout(options.dropout)
        self.up = self.linear(options.bottleneck, out_features)
        self.scaling = nn.Parameter(torch.ones(())) if options.scaling == "learned" else options.scaling
        if options.init == "paper":
            for layer in (self.down, self.up):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        else:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def through(self, x: "Tensor") -> "Tensor":
        """The bottleneck alone, without the place it sits at."""
        update: Tensor = self.up(self.dropout(self.middle(self.down(x))))
        return update * self.scaling
