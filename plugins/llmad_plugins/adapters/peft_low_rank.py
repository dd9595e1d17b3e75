"""PEFT's layout of low-rank updates: one pair A, B a linear map, in `adapter_config.json` of type LORA."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Self

from llmad import Site, UsageError
from llmad_plugins.adapters.low_rank import LowRankOptions
from llmad_plugins.adapters.peft_layout import ending, key, share, spread

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]
_CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
}
_KNOWN = (  # what is read here, and what says nothing about what is computed; anything else must be unasked
    "peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "init_lora_weights", "use_rslora",
    "rank_pattern", "fan_in_fan_out", "inference_mode", "auto_mapping", "base_model_name_or_path", "revision",
    "peft_version", "megatron_core", "qalora_group_size",
)  # fmt: skip
_UNASKED: tuple[Any, ...] = (None, False, "none", [], {})
_INITS = (None, True, False, "gaussian", "orthogonal")  # the others change the base's weights


class PeftLowRank(LowRankOptions):
    """A method with a low-rank update that PEFT has too.

    Attributes:
        own_config: what marks the method in `adapter_config.json`.
        own_tensors: the module's other tensors, one number an output, and PEFT's names of them.
    """

    own_config: ClassVar[dict[str, bool]] = {}
    own_tensors: ClassVar[dict[str, str]] = {}

    def export(self, modules: Sequence[tuple[Site, Tensors]]) -> tuple[dict[str, Any], Tensors]:
        """PEFT's layout; llmad's own where PEFT cannot say it."""
        groups = _by_path(modules)
        if not self._sayable([site for site, _ in modules]):
            return super().export(modules)
        config: dict[str, Any] = {
            **_CONFIG, **self.own_config, "r": self.r, "lora_alpha": self.alpha, "lora_dropout": self.dropout,
            "use_rslora": self.rslora, "target_modules": list(groups), "rank_pattern": {}, "alpha_pattern": {},
        }  # fmt: skip
        tensors: Tensors = {}
        for path, pairs in groups.items():
            down, up = _joined(pairs)
            tensors |= {key(path, "lora_A.weight"): down, key(path, "lora_B.weight"): up}
            tensors |= {key(path, theirs): pairs[0][1][own] for own, theirs in self.own_tensors.items()}
            if (r := len(down)) != self.r:
                config["rank_pattern"][path] = r
            if (alpha := self.alpha * self.scale(self.rank(pairs[0][0])) / self.scale(r)) != self.alpha:
                config["alpha_pattern"][path] = alpha  # several roles of a fused linear: their ranks add up
        return config, tensors

    def restore(self, sites: Sequence[Site], tensors: Tensors) -> dict[Site, Tensors]:
        """Read PEFT's layout; a fused linear's matrices are taken apart again."""
        if not self._sayable(sites):
            return super().restore(sites, tensors)
        found: dict[Site, Tensors] = {}
        for path, group in groupby(sites, key=lambda site: site.path):
            start, pairs = 0, list(group)
            for site in pairs:
                end = start + self.rank(site)
                ranks = slice(start, end) if len(pairs) > 1 else slice(None)
                down, up = (tensors.get(key(path, f"lora_{matrix}.weight")) for matrix in "AB")
                found[site] = _own_share(site, ranks, down, up)
                kept = {own: tensors.get(key(path, theirs)) for own, theirs in self.own_tensors.items()}
                found[site] |= {own: tensor for own, tensor in kept.items() if tensor is not None}
                start = end
        return found

    @classmethod
    def reads_peft(cls, config: Mapping[str, Any]) -> bool:
        """PEFT's LoRA, with what marks this method and no other."""
        asked = bool(config.get("use_dora")) == bool(cls.own_config)
        return config.get("peft_type") == "LORA" and asked

    @classmethod
    def from_peft(cls, config: Mapping[str, Any]) -> Self:
        """Read what PEFT wrote; what it asks beyond this method is refused."""
        asked = [
            option
            for option, value in config.items()
            if option not in (*_KNOWN, *cls.own_config) and value not in _UNASKED
        ]
        if config.get("init_lora_weights") not in _INITS:
            asked.append("init_lora_weights")
        if asked:
            raise UsageError("foreign-adapter", f"PEFT's {', '.join(asked)} is more than plain {cls.name}")
        targets = config.get("target_modules") or []
        pattern = config.get("rank_pattern") or {}
        options = {
            "r": config.get("r"),
            "alpha": config.get("lora_alpha"),
            "dropout": config.get("lora_dropout", 0.0),
            "rslora": bool(config.get("use_rslora")),
            "sites": [f"path:{targets}" if isinstance(targets, str) else ending(targets)],
            "rank_pattern": {f"path:(.*\\.)?({end})": r for end, r in reversed(pattern.items())},
        }
        return cls.read(options)

    def _sayable(self, sites: Sequence[Site]) -> bool:
        """Whether PEFT has words for it: modules only, nothing before them, one scale each, no half magnitude."""
        scales = {site.path: self.scale(self.rank(site)) for site in sites}
        return all(
            not site.before
            and not site.stack
            and self.scale(self.rank(site)) == scales[site.path]
            and not (site.rows and self.own_tensors)
            for site in sites
        )


def _by_path(modules: Sequence[tuple[Site, Tensors]]) -> dict[str, list[tuple[Site, Tensors]]]:
    return {path: list(group) for path, group in groupby(modules, key=lambda pair: pair[0].path)}


def _joined(pairs: Iterable[tuple[Site, Tensors]]) -> "tuple[Tensor, Tensor]":
    """The roles of one linear as one pair A, B; B is zero in the rows that are no role's."""
    import torch

    pairs = list(pairs)
    down = torch.cat([own["down.weight"] for _, own in pairs])
    ups = [spread(site, own["up.weight"], 0.0) for site, own in pairs]
    return down, torch.cat(ups, dim=1)


def _own_share(site: Site, ranks: slice, down: "Tensor | None", up: "Tensor | None") -> Tensors:
    """A role's matrices out of its linear's."""
    own = {}
    if down is not None:
        own["down.weight"] = down[ranks].contiguous()
    if up is not None:
        own["up.weight"] = share(site, up)[:, ranks].contiguous()
    return own
