"""The bottleneck that the series and the parallel adapter share: down, non-linearity, up, scaling."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from llmad import AdapterModule, AdapterSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Activation = Literal["relu", "gelu", "silu", "tanh", "leaky_relu", "sigmoid", "linear"]
Share = Annotated[str, Field(pattern=r"^1/[1-9]\d*$")]


class BottleneckOptions(AdapterSpec):
    """The options of a bottleneck.

    Attributes:
        bottleneck: the width in the middle, or its share of the width that comes in, such as `1/16`.
        activation: the non-linearity in the middle.
        scaling: a fixed factor, or `learned`: one trained number a site that starts at 1.
        dropout: the share of the middle that is dropped in training.
        bias: whether both linear maps have one.
        init: `zero` (a fresh adapter changes nothing) or `paper` (N(0, 0.02)).
    """

    bottleneck: PositiveInt | Share = 64
    activation: Activation = "relu"
    scaling: float | Literal["learned"] = 1.0
    dropout: float = Field(0.0, ge=0, lt=1)
    bias: bool = True
    init: Literal["zero", "paper"] = "zero"

    def width(self, in_features: int) -> int:
        """The width in the middle where so much comes in."""
        if isinstance(self.bottleneck, int):
            return self.bottleneck
        return max(1, in_features // int(self.bottleneck.removeprefix("1/")))


class Bottleneck(AdapterModule):
    """(batch, length, in_features) to (batch, length, out_features), through `bottleneck` dimensions."""

    scaling: "float | nn.Parameter"

    def __init__(self, in_features: int, out_features: int, options: BottleneckOptions) -> None:
        import torch
        from torch import nn

        super().__init__()
        width = options.width(in_features)
        self.down = self.linear(in_features, width, options.bias)
        self.middle = self.activation(options.activation)
        self.dropout = nn.Dropout(options.dropout)
        self.up = self.linear(width, out_features, options.bias)
        self.scaling = nn.Parameter(torch.ones(())) if options.scaling == "learned" else options.scaling
        layers = (self.down, self.up) if options.init == "paper" else (self.up,)
        for layer in layers:
            nn.init.normal_(layer.weight, std=0.02 if options.init == "paper" else 0.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def through(self, x: "Tensor") -> "Tensor":
        """The bottleneck alone, without the place it sits at."""
        update: Tensor = self.up(self.inside(x))
        return update * self.scaling

    def added(self, h: "Tensor", x: "Tensor") -> "Tensor":
        """`h + self.through(x)`, in fewer steps."""
        return self.up.onto(h, self.inside(x), self.scaling)

    def inside(self, x: "Tensor") -> "Tensor":
        """The middle, (batch, length, bottleneck)."""
        middle: Tensor = self.dropout(self.middle(self.down(x)))
        return middle
