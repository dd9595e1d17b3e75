"""IA3: learned factors on the keys, the values and the inside of the MLP.

    k = l_k * (W_k x)        v = l_v * (W_v x)        mlp = W_down (l_ff * act(...))

Liu et al., 2022 (arXiv 2205.05638), section 3.3. l_k, l_v, l_ff (features,) start at one, so a fresh adapter changes
nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llmad import AdapterModule, AdapterSpec, Site, Sites, UsageError, hookimpl
from llmad_plugins.adapters.peft_layout import ending, key, share, spread

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]
_FACTORS = "ia3_l"


class IA3(AdapterSpec):
    """Learned factors on keys, values and the MLP's inside (Liu et al., 2022)."""

    name = "ia3"
    learning_rate: ClassVar[float] = 1e-2
    rate_falls_with_width: ClassVar[bool] = False

    sites: Sites = Sites("attn.k", "attn.v", "mlp.down@before")

    def build(self, site: Site) -> AdapterModule:
        """One factor for each output; `@before` makes the outputs those of the input."""
        return Factors(site.out_features)

    def export(self, modules: Sequence[tuple[Site, Tensors]]) -> tuple[dict[str, Any], Tensors]:
        """PEFT's layout; llmad's own where a linear has factors on both sides, or for some rows on its input."""
        paths = list(dict.fromkeys(site.path for site, _ in modules))
        before = [site.path for site, _ in modules if site.before]
        if not _sayable([site for site, _ in modules]):
            return super().export(modules)
        config = {"peft_type": "IA3", "task_type": "CAUSAL_LM", "inference_mode": True, "fan_in_fan_out": False}
        tensors: Tensors = {}
        for site, own in modules:
            factors, place = spread(site, own["factors"], 1.0), key(site.path, _FACTORS)
            shaped = factors[None] if site.before else factors[:, None]
            tensors[place] = shaped * tensors.get(place, 1.0)  # the roles of a fused linear own different rows
        return config | {"target_modules": paths, "feedforward_modules": before}, tensors

    def restore(self, sites: Sequence[Site], tensors: Tensors) -> dict[Site, Tensors]:
        """Read PEFT's layout; a fused linear's factors are taken apart again."""
        if not _sayable(sites):
            return super().restore(sites, tensors)
        found = {site: tensors.get(key(site.path, _FACTORS)) for site in sites}
        return {
            site: {} if whole is None else {"factors": share(site, whole.flatten())} for site, whole in found.items()
        }

    @classmethod
    def reads_peft(cls, config: Mapping[str, Any]) -> bool:
        """PEFT's IA3."""
        return config.get("peft_type") == "IA3"

    @classmethod
    def from_peft(cls, config: Mapping[str, Any]) -> "IA3":
        """Read the `adapter_config.json` that PEFT wrote."""
        if asked := [key for key in ("modules_to_save", "exclude_modules") if config.get(key)]:
            raise UsageError("foreign-adapter", f"PEFT's {', '.join(asked)} is more than plain {cls.name}")
        targets, inner = config.get("target_modules") or [], config.get("feedforward_modules") or []
        if isinstance(targets, str) or isinstance(inner, str):
            raise UsageError("foreign-adapter", "PEFT's target_modules is one regular expression, not a list")
        outer = [target for target in targets if target not in inner]
        sites = [ending(outer)] * bool(outer) + [f"{ending(inner)}@before"] * bool(inner)
        return cls.read({"sites": sites})


class Factors(AdapterModule):
    """(batch, length, width) to the same shape."""

    def __init__(self, width: int) -> None:
        import torch

        super().__init__()
        self.factors = torch.nn.Parameter(torch.ones(width))

    def forward(self, base: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
        """The place's output, or its input where it sits before, each feature by its factor."""
        import torch

        h = base(x)
        return torch.addcmul(h, h, (self.factors - 1).to(h.dtype))  # near one, half precision has few digits

    def fold(self, weight: "Tensor", bias: "Tensor | None") -> "tuple[Tensor, Tensor | None]":
        """The factors on the weight's columns, or on its rows and the bias."""
        factors = self.factors.to(weight)
        if self.site.before:
            return weight * factors, bias
        return weight * factors[:, None], None if bias is None else bias * factors


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """IA3."""
    return [IA3]


def _sayable(sites: Sequence[Site]) -> bool:
    """Whether PEFT has words for it: modules only, and factors on one side of each."""
    if any(site.stack for site in sites):
        return False
    before = {site.path for site in sites if site.before}
    return not any(site.path in before and (site.rows or not site.before) for site in sites)
