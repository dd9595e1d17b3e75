"""The low-rank update and its options, for the methods that learn one."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from llmad import AdapterModule, AdapterSpec, Site, Sites, UsageError

if TYPE_CHECKING:
    from torch import Tensor


class LowRankOptions(AdapterSpec):
    """The options of a low-rank update.

    Attributes:
        r: the rank.
        alpha: the update is scaled by alpha / r, with the rank of its site.
        rslora: scale by alpha / sqrt(r) instead (Kalajdzievski, 2023, arXiv 2312.03732).
        rank_pattern: other ranks for some sites, such as `{attn.q: 16, mlp.*: 4}`; the last key that covers a site.
        dropout: the share of the update's input that is dropped in training.
        init: A is Kaiming-uniform as in the authors' code (`zero`) or N(0, 0.02) (`paper`); B is zero in both.
    """

    fits: ClassVar[tuple[str, ...]] = tuple(
        role for role in AdapterSpec.fits if role not in ("attn", "mixer", "mlp", "block")
    )

    sites: Sites = Sites("attn.q", "attn.v")
    r: PositiveInt = 8
    alpha: PositiveFloat = 16
    rslora: bool = False
    rank_pattern: dict[str, PositiveInt] = Field(default_factory=dict)
    dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["zero", "paper"] = "zero"

    @field_validator("rank_pattern")
    @classmethod
    def _known(cls, pattern: dict[str, int]) -> dict[str, int]:
        for key in pattern:
            Sites.parse(key)
        return pattern

    def rank(self, site: Site) -> int:
        """The rank at a site."""
        return next((r for key, r in reversed(self.rank_pattern.items()) if Sites.parse(key).covers(site)), self.r)

    def scale(self, r: int) -> float:
        """The factor of an update of this rank."""
        return self.alpha / (math.sqrt(r) if self.rslora else r)

    def assemble(self, sites: Sequence[Site]) -> dict[Site, AdapterModule]:
        """One module a site; a key of the rank pattern that covers none is refused."""
        for key in self.rank_pattern:
            if not any(Sites.parse(key).covers(site) for site in sites):
                raise UsageError("no-match", f"rank_pattern {key!r} covers none of the sites {self.sites}")
        return super().assemble(sites)


class LowRank(AdapterModule):
    """x (..., in_features) to (..., out_features), through r dimensions: scale * B A dropout(x)."""

    def __init__(self, site: Site, spec: LowRankOptions) -> None:
        from torch import nn

        super().__init__()
        r = spec.rank(site)
        self.scale = spec.scale(r)
        self.dropout = nn.Dropout(spec.dropout)
        self.down = self.linear(site.in_features, r, bias=False)
        self.up = self.linear(r, site.out_features, bias=False)
        if spec.init == "paper":
            nn.init.normal_(self.down.weight, std=0.02)
        else:
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def delta(self) -> "Tensor":
        """What the update adds to the weight: (out_features, in_features)."""
        return self.scale * self.up.weight @ self.down.weight
