"""The options of the methods that put virtual tokens before the text, and their files in PEFT's layout."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import PositiveInt

from llmad import AdapterSpec, Site, Sites, UsageError
from llmad_plugins.adapters.virtual import VirtualTokens

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]
_KEY = "prompt_embeddings"


class VirtualOptions(AdapterSpec):
    """The options of virtual tokens, and their files in PEFT's layout.

    A method whose virtual tokens are made by an encoder saves the encoder beside them: PEFT passes over it, and
    training can go on from it.

    Attributes:
        peft_type: what PEFT calls the method.
        peft_options: the options that go without an encoder, which PEFT's files do not hold.
        num_virtual_tokens: how many stand before the text.
    """

    fits: ClassVar[tuple[str, ...]] = ("model",)
    peft_type: ClassVar[str]
    peft_options: ClassVar[dict[str, Any]] = {}

    sites: Sites = Sites("model")
    num_virtual_tokens: PositiveInt = 100

    @property
    def encoded(self) -> bool:
        """Whether an encoder makes the virtual tokens."""
        return False

    def peft_sizes(self, site: Site) -> dict[str, Any]:
        """What of the sizes PEFT cannot read from the base's config."""
        return {"token_dim": site.out_features}

    def blank(self, site: Site, own: Tensors) -> "VirtualTokens":  # noqa: ARG002  sizes, where the site has not all
        """A module that `own` can be loaded into."""
        module = self.build(site)
        assert isinstance(module, VirtualTokens)
        return module

    def export(self, modules: Sequence[tuple[Site, Tensors]]) -> tuple[dict[str, Any], Tensors]:
        """PEFT's layout: one matrix, and the encoder if there is one."""
        ((site, own),) = modules
        config = {"peft_type": self.peft_type, "task_type": "CAUSAL_LM", "inference_mode": True}
        config |= {"num_virtual_tokens": self.num_virtual_tokens, "num_transformer_submodules": 1}
        config |= self.peft_sizes(site)
        return config, {_KEY: self._made(site, own), **own} if self.encoded else {_KEY: own["tokens"]}

    def restore(self, sites: Sequence[Site], tensors: Tensors) -> dict[Site, Tensors]:
        """Read PEFT's layout."""
        (site,) = sites
        if self.encoded:
            if (count := len(tensors[_KEY])) != self.num_virtual_tokens:  # told before the encoder takes its memory
                raise ValueError(f"there are {count:,} virtual tokens, and not {self.num_virtual_tokens:,}")
            return {site: {name: tensor for name, tensor in tensors.items() if name not in self.derived()}}
        return {site: {"tokens": tensors[_KEY]} if _KEY in tensors else {}}

    def derived(self) -> tuple[str, ...]:
        """What an encoder makes is written for PEFT."""
        return (_KEY,) if self.encoded else ()

    def _made(self, site: Site, own: Tensors) -> "Tensor":
        """What the encoder makes, in float32."""
        import torch

        with torch.device("meta"):  # draws no random number
            module = self.blank(site, own)
        fresh = {name: tensor.to(torch.float32, copy=True) for name, tensor in own.items()}  # the same alignment always
        module.load_state_dict(fresh, assign=True)
        with torch.no_grad():
            return module.eval().virtual()

    @classmethod
    def reads_peft(cls, config: Mapping[str, Any]) -> bool:
        """PEFT's method of that type, if its files hold what this method learns."""
        return config.get("peft_type") == cls.peft_type

    @classmethod
    def from_peft(cls, config: Mapping[str, Any]) -> Self:
        """Read the `adapter_config.json` that PEFT wrote; its files hold the virtual tokens and no encoder."""
        if config.get("num_transformer_submodules") not in (None, 1):
            raise UsageError("foreign-adapter", "PEFT's prompt for an encoder and a decoder has no place here")
        read = cls.read({"num_virtual_tokens": config.get("num_virtual_tokens"), **cls.peft_options})
        assert isinstance(read, cls)
        return read
