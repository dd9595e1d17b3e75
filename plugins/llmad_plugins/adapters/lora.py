"""LoRA: a low-rank update beside a linear map.

    h = W x + (alpha / r) B A dropout(x)        A (r, in_features), B (out_features, r)

Hu et al., 2021 (arXiv 2106.09685), section 4.1. B starts at zero, so a fresh adapter changes nothing; A starts
Kaiming-uniform as in the authors' code (`init=zero`) or N(0, 0.02) (`init=paper`).
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, PositiveFloat, PositiveInt

from llmad import AdapterModule, AdapterSpec, Site, Sites, UsageError, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]


class LoRA(AdapterSpec):
    """Low-rank update of a linear map (Hu et al., 2021)."""

    name = "lora"
    fits: ClassVar[tuple[str, ...]] = tuple(role for role in AdapterSpec.fits if role not in ("attn", "mlp", "block"))
    learning_rate: ClassVar[float] = 3e-4

    sites: Sites = Sites("attn.q", "attn.v")
    r: PositiveInt = 8
    alpha: PositiveFloat = 16
    dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["zero", "paper"] = "zero"

    def build(self, site: Site) -> AdapterModule:
        """One pair A, B."""
        return LoRALayer(site.in_features, site.out_features, self)

    def export(self, modules: Sequence[tuple[Site, Tensors]]) -> tuple[dict[str, Any], Tensors]:
        """PEFT's layout, except where an adapter sits before its place, which PEFT cannot say."""
        if any(site.before for site, _ in modules):
            return super().export(modules)
        config: dict[str, Any] = {
            **_PEFT,
            "r": self.r,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
        }
        config |= {"target_modules": [], "rank_pattern": {}, "alpha_pattern": {}}
        tensors: Tensors = {}
        for path, group in groupby(modules, key=lambda pair: pair[0].path):
            pairs = list(group)
            down, up = _joined(pairs)
            tensors |= {_key(path, "A"): down, _key(path, "B"): up}
            config["target_modules"].append(path)
            if len(pairs) > 1:  # several roles of one fused linear: their ranks add up
                config["rank_pattern"][path] = self.r * len(pairs)
                config["alpha_pattern"][path] = self.alpha * len(pairs)
        return config, tensors

    def restore(self, sites: Sequence[Site], tensors: Tensors) -> dict[Site, Tensors]:
        """Read PEFT's layout; a fused linear's matrices are taken apart again."""
        if any(site.before for site in sites):
            return super().restore(sites, tensors)
        found: dict[Site, Tensors] = {}
        for path, group in groupby(sites, key=lambda site: site.path):
            pairs = list(group)
            for place, site in enumerate(pairs):
                ranks = slice(place * self.r, (place + 1) * self.r) if len(pairs) > 1 else slice(None)
                found[site] = _own_share(site, ranks, tensors.get(_key(path, "A")), tensors.get(_key(path, "B")))
        return found

    @classmethod
    def reads_peft(cls, config: Mapping[str, Any]) -> bool:
        """PEFT's LoRA."""
        return config.get("peft_type") == "LORA"

    @classmethod
    def from_peft(cls, config: Mapping[str, Any]) -> "LoRA":
        """Read the `adapter_config.json` of a LoRA that PEFT wrote; what it asks beyond plain LoRA is refused."""
        asked = [key for key, value in config.items() if key not in _PLAIN and value not in _UNASKED]
        if config.get("init_lora_weights") not in _INITS:  # the others change the base's weights
            asked.append("init_lora_weights")
        if asked:
            raise UsageError("foreign-adapter", f"PEFT's {', '.join(asked)} is more than plain LoRA")
        targets = config.get("target_modules") or []
        paths = [targets] if isinstance(targets, str) else [f"(.*\\.)?{re.escape(target)}" for target in targets]
        placement = f"path:{'|'.join(f'({path})' for path in paths)}"
        options = {"r": config.get("r"), "alpha": config.get("lora_alpha"), "dropout": config.get("lora_dropout", 0.0)}
        return cast(LoRA, cls.read(options | {"sites": [placement]}))


class LoRALayer(AdapterModule):
    """x (batch, length, in_features) to (batch, length, out_features), through r dimensions."""

    def __init__(self, in_features: int, out_features: int, spec: LoRA) -> None:
        from torch import nn

        super().__init__()
        self.scale = spec.alpha / spec.r
        self.dropout = nn.Dropout(spec.dropout)
        self.down = self.linear(in_features, spec.r, bias=False)
        self.up = self.linear(spec.r, out_features, bias=False)
        if spec.init == "paper":
            nn.init.normal_(self.down.weight, std=0.02)
        else:
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output plus the update."""
        update: Tensor = self.up(self.down(self.dropout(x)))
        return base(x) + self.scale * update

    def delta(self) -> "Tensor":
        """What the update adds to the weight: (out_features, in_features)."""
        return self.scale * self.up.weight @ self.down.weight


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """LoRA."""
    return [LoRA]


_PEFT = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
}
_PLAIN = (  # what plain LoRA has, and what says nothing about what it computes; anything else must be unasked
    "peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "init_lora_weights",
    "fan_in_fan_out", "inference_mode", "auto_mapping", "base_model_name_or_path", "revision", "peft_version",
    "megatron_core", "qalora_group_size",
)  # fmt: skip
_UNASKED: tuple[Any, ...] = (None, False, "none", [], {})
_INITS = (None, True, False, "gaussian", "orthogonal")


def _key(path: str, matrix: str) -> str:
    return f"base_model.model.{path}.lora_{matrix}.weight"


def _joined(pairs: Iterable[tuple[Site, Tensors]]) -> "tuple[Tensor, Tensor]":
    """The roles of one linear as one pair A, B; B is zero in the rows that are no role's."""
    import torch

    pairs = list(pairs)
    down = torch.cat([own["down.weight"] for _, own in pairs])
    ups = [_spread(site, own["up.weight"]) for site, own in pairs]
    return down, torch.cat(ups, dim=1)


def _spread(site: Site, up: "Tensor") -> "Tensor":
    if site.rows is None:
        return up
    whole = up.new_zeros(site.rows.groups * site.rows.stride, up.shape[1])
    whole[site.rows.index()] = up
    return whole


def _own_share(site: Site, ranks: slice, down: "Tensor | None", up: "Tensor | None") -> Tensors:
    """A role's matrices out of its linear's."""
    own = {}
    if down is not None:
        own["down.weight"] = down[ranks].contiguous()
    if up is not None:
        rows = site.rows.index() if site.rows else slice(None)
        own["up.weight"] = up[rows][:, ranks].contiguous()
    return own
