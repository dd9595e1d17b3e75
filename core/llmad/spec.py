"""AdapterSpec: the config of an adapter method, in text `lora[r=16,sites=attn.q+attn.v,layers=8:]`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llmad.errors import UsageError
from llmad.module import AdapterModule
from llmad.options import Options
from llmad.selector import Layers, Sites
from llmad.site import LINEAR_ROLES, PATH_ROLE, QKV_ROLE, Site

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]


class AdapterSpec(Options):
    """Base class of an adapter method: a frozen, validated config that builds one module a site.

    A subclass sets `name`, its docstring's first line is the method's summary, its fields are the options, and
    `build` makes the module. `sites` is the default placement; users override it.

    Attributes:
        name: what users type.
        fits: the roles that the method can sit at.
        learning_rate: what trains well at a width of 4096; `rate` says what that means for a model.
        rate_falls_with_width: False for a method that learns vectors (embeddings, factors) and not matrices.
        sites: where the modules sit.
        layers: which layers; all where None.
    """

    fits: ClassVar[tuple[str, ...]] = (*LINEAR_ROLES, "attn", "mixer", "mlp", "block", "head", QKV_ROLE, PATH_ROLE)
    learning_rate: ClassVar[float] = 3e-4
    rate_falls_with_width: ClassVar[bool] = True

    sites: Sites
    layers: Layers | None = None

    def build(self, site: Site) -> AdapterModule:
        """Make the module for one site; with torch's global generator, so that a seed fixes the weights."""
        raise TypeError(f"{type(self).__name__} does not define build(self, site), asked for {site.label}")

    def assemble(self, sites: Sequence[Site]) -> dict[Site, AdapterModule]:
        """Make the modules of all sites; a method whose sites share parameters overrides this instead of `build`.

        A parameter that several modules hold is trained, counted and saved once.
        """
        return {site: self.build(site) for site in sites}

    def takes_over(self) -> Sequence[str]:
        """The names of adapters that act through this one from now on, and no longer by themselves; none by default."""
        return ()

    def rate(self, width: int) -> float:
        """The default learning rate for a model of this width; a recipe overrides it.

        Adam's best rate for matrices falls as one over the width (Yang et al., 2022, arXiv 2203.03466, table 3).
        """
        return self.learning_rate * (4096 / width if self.rate_falls_with_width else 1)

    def export(self, modules: Sequence[tuple[Site, Tensors]]) -> tuple[dict[str, Any], Tensors]:
        """The files' content: `adapter_config.json` and the tensors by name.

        A method whose weights a peer can read overrides this and `restore` to write the peer's layout.
        """
        tensors = {f"{site.label}:{name}": tensor for site, own in modules for name, tensor in own.items()}
        return {"method": self.name, "options": self.options()}, tensors

    def restore(self, sites: Sequence[Site], tensors: Tensors) -> dict[Site, Tensors]:
        """The inverse of `export`: the tensors of each site; a name that belongs to no site stays out."""
        return {
            site: {
                name.removeprefix(f"{site.label}:"): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{site.label}:")
            }
            for site in sites
        }

    def derived(self) -> Sequence[str]:
        """Names of exported tensors that are made from the others, for other readers; found again but for rounding."""
        return ()

    @classmethod
    def reads_peft(cls, config: Mapping[str, Any]) -> bool:  # noqa: ARG003  most methods read none
        """Whether a PEFT `adapter_config.json` is of this method, so that `from_peft` and `restore` can read it."""
        return False

    @classmethod
    def from_peft(cls, config: Mapping[str, Any]) -> "AdapterSpec":
        """The spec that a PEFT `adapter_config.json` of this method means."""
        raise UsageError("foreign-adapter", f"{cls.name} does not read PEFT's {config.get('peft_type')} layout")
