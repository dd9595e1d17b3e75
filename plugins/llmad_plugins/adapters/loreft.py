"""LoReFT: an edit of the hidden states within a learned low-rank subspace.

    h = base(x)        out = h + R^T dropout(W h + b - R h)        R (r, width) with R R^T = 1, W (r, width), b (r,)

Wu et al., 2024 (arXiv 2404.03592), section 3.2, equation 2. The paper edits the first and the last few positions of
the prompt; here every position is edited, so that a text has the same hidden states with a cache and without.

R is the orthonormal basis of a free matrix's rows (QR decomposition, in float32 at least), which starts orthonormal.
W is kept as its distance from R, D = W - R, so that out = h + R^T (D h + b), and exactly h where D and b are zero,
as they are at the start (`init=zero`); or W and b start as a torch linear map does (`init=paper`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from llmad import AdapterModule, AdapterSpec, Site, Sites, UsageError, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class LoReFT(AdapterSpec):
    """Low-rank edit of the hidden states in an orthonormal subspace (Wu et al., 2024).

    Attributes:
        r: the dimensions of the subspace.
        dropout: the share of the subspace's coordinates that is not edited in training.
        init: `zero` (a fresh adapter changes nothing) or `paper`.
    """

    name = "loreft"
    learning_rate: ClassVar[float] = 9e-4

    sites: Sites = Sites("block")
    r: PositiveInt = 4
    dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["zero", "paper"] = "zero"

    def build(self, site: Site) -> AdapterModule:
        """One R, W and b."""
        if self.r > site.out_features:
            raise UsageError(
                "bad-option",
                f"loreft: r {self.r} is more than the {site.out_features} dimensions of {site.label}",
                f"choose r up to {site.out_features}",
            )
        return LoReFTLayer(site.out_features, self)


class LoReFTLayer(AdapterModule):
    """h (batch, length, width) to the same shape, changed in r dimensions."""

    def __init__(self, width: int, spec: LoReFT) -> None:
        import torch
        from torch import nn

        super().__init__()
        self.basis = nn.Parameter(nn.init.orthogonal_(torch.empty(spec.r, width)))
        self.edit = self.linear(width, spec.r)  # D and b
        self.dropout = nn.Dropout(spec.dropout)
        with torch.no_grad():
            if spec.init == "paper":
                self.edit.weight -= self.rotation()
            else:
                nn.init.zeros_(self.edit.weight)
                nn.init.zeros_(self.edit.bias)

    def rotation(self) -> "Tensor":
        """R, (r, width).

        Not torch's `orthogonal` parametrisation: it keeps a (width, width) matrix a place, or reads signs off
        trained numbers, which weight decay turns into zeros.
        """
        import torch

        basis = self.basis.to(torch.promote_types(self.basis.dtype, torch.float32))
        columns, triangle = torch.linalg.qr(basis.T)
        # QR leaves the signs open; with these R is continuous in the basis, and the basis itself where orthonormal
        signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0).to(basis)
        rows: Tensor = (columns * signs).T
        return rows

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output, edited at every position."""
        h = base(x)
        edit: Tensor = self.dropout(self.edit(h))
        return h + edit @ self.rotation().to(h.dtype)


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """LoReFT."""
    return [LoReFT]
