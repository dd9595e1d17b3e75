"""Layers that keep their weights in one dtype and compute in another."""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that torch's own documentation uses


class Linear(nn.Linear):
    """A linear map that computes in the dtype of its input: the small weight is cast, never the activations."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features), in the dtype of the input."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)
