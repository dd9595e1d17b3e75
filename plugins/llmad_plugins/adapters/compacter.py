"""Compacter: a bottleneck after a place whose two projections are sums of Kronecker products.

    h = base(x)        out = h + LPHM_up(dropout(act(LPHM_down h)))
    LPHM x = W^T x + b        W = sum_i A_i (x) (s_i t_i), i = 1 ... n

with A_i (n, n), the same in all projections, and s_i (k/n, rank), t_i (rank, d/n) for k to d dimensions.
Karimi Mahabadi et al., 2021 (arXiv 2106.04647), section 4; at `mlp.down` alone it is their Compacter++. As in the
authors' code A_i starts N(0, 0.01), s_i and t_i Glorot-uniform, b at zero (`init=paper`); with `init=zero` the t_i of
the up projection are zero too, and a fresh adapter changes nothing.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from llmad import AdapterModule, AdapterSpec, ModelError, Site, Sites, hookimpl
from llmad_plugins.adapters.bottleneck import Activation

if TYPE_CHECKING:
    from torch import Tensor, nn


class Compacter(AdapterSpec):
    """Bottleneck of Kronecker products with factors shared by all places (Karimi Mahabadi et al., 2021).

    Attributes:
        bottleneck: the width in the middle; a multiple of `phm_dim`.
        phm_dim: n, the number of Kronecker products in a sum; it divides every width.
        phm_rank: the rank of s_i t_i.
        shared: all projections share the A_i; otherwise each has its own.
        activation: the non-linearity in the middle.
        dropout: the share of the middle that is dropped in training.
        init: `zero` (a fresh adapter changes nothing) or `paper`.
    """

    name = "compacter"
    learning_rate: ClassVar[float] = 3e-4

    sites: Sites = Sites("attn.o", "mlp.down")
    bottleneck: PositiveInt = 24
    phm_dim: PositiveInt = 4
    phm_rank: PositiveInt = 1
    shared: bool = True
    activation: Activation = "gelu"
    dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["zero", "paper"] = "zero"

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.bottleneck % self.phm_dim:
            raise ValueError(f"bottleneck {self.bottleneck} is not a multiple of phm_dim {self.phm_dim}")
        return self

    def assemble(self, sites: Sequence[Site]) -> dict[Site, AdapterModule]:
        """One module a site, with the same A_i in all."""
        for site in sites:
            if site.out_features % self.phm_dim:
                fault = f"{site.label}: width {site.out_features} is not a multiple of phm_dim {self.phm_dim}"
                raise ModelError("indivisible", fault, "choose another phm_dim, or other sites")
        rule = _rule(1, self.phm_dim) if self.shared else None
        return {site: CompacterLayer(site.out_features, self, rule) for site in sites}


class CompacterLayer(AdapterModule):
    """h (batch, length, width) to the same shape."""

    def __init__(self, width: int, spec: Compacter, rule: "nn.Parameter | None" = None) -> None:
        from torch import nn

        super().__init__()
        self.rule = _rule(2, spec.phm_dim) if rule is None else rule  # the A_i of both projections, or of each
        self.down = _projection(width, spec.bottleneck, spec)
        self.middle = self.activation(spec.activation)
        self.dropout = nn.Dropout(spec.dropout)
        self.up = _projection(spec.bottleneck, width, spec)
        if spec.init == "zero":
            nn.init.zeros_(self.up["right"])

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output, and what the bottleneck makes of it."""
        h = base(x)
        down, up = self.rule.expand(2, -1, -1, -1)
        return h + _project(up, self.up, self.dropout(self.middle(_project(down, self.down, h))))


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """Compacter."""
    return [Compacter]


def _rule(count: int, n: int) -> "nn.Parameter":
    """The A_i of so many projections, (count, n, n, n)."""
    from torch import empty, nn

    return nn.Parameter(nn.init.normal_(empty(count, n, n, n), std=0.01))


def _projection(wide_in: int, wide_out: int, spec: Compacter) -> "nn.ParameterDict":
    """s_i as `left`, t_i as `right` and b as `bias`."""
    from torch import empty, nn, zeros

    n, rank = spec.phm_dim, spec.phm_rank
    left, right = empty(n, wide_in // n, rank), empty(n, rank, wide_out // n)
    for factor in (*left, *right):
        nn.init.xavier_uniform_(factor)
    return nn.ParameterDict({"left": left, "right": right, "bias": zeros(wide_out)})


def _project(rule: "Tensor", own: "nn.ParameterDict", x: "Tensor") -> "Tensor":
    """W^T x + b; W is written out, since it is small beside the activations: one side of it is the bottleneck."""
    from torch import einsum

    products = own["left"] @ own["right"]  # s_i t_i, (n, k/n, d/n)
    shared = rule.to(products)  # to its device too: the model may lie on several
    # (A (x) B)[a k/n + p, b d/n + q] = A[a, b] B[p, q]
    weight = einsum("iab,ipq->apbq", shared, products).flatten(2).flatten(0, 1)
    out: Tensor = x @ weight.to(x) + own["bias"].to(x)
    return out
