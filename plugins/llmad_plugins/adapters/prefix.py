"""Prefix tuning: learned keys and values before those of every text, in every layer.

    attention(Q, [P_k; K], [P_v; V])        P_k, P_v (num_virtual_tokens, kv_heads * head_dim), a pair for each layer

Li and Liang, 2021 (arXiv 2101.00190), section 4.2. The pairs are made by a network, as in section 4.3, and it is the
network that is trained (`prefix_projection`, PEFT's name):

    [P_k; P_v] of all layers = W_2 tanh(W_1 E + b_1) + b_2        E (num_virtual_tokens, kv_heads * head_dim)

E starts N(0, 1), W and b as torch's linears do; the middle has `encoder_hidden_size`, 512 as in the authors' code.
Without it the pairs themselves are trained, and start N(0, 0.02).
"""

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import PositiveInt, model_validator

from llmad import AdapterModule, AdapterSpec, Site, hookimpl
from llmad_plugins.adapters.cache_pairs import CachePairs
from llmad_plugins.adapters.virtual import VirtualTokens
from llmad_plugins.adapters.virtual_options import Tensors, VirtualOptions

if TYPE_CHECKING:
    from torch import Tensor

_PAIRS_RATE = 5e-2


class Prefix(VirtualOptions):
    """Learned keys and values before the text in every layer (Li and Liang, 2021).

    Attributes:
        prefix_projection: a network makes the pairs, and is trained in their place.
        encoder_hidden_size: its width in the middle.
    """

    name = "prefix"
    peft_type = "PREFIX_TUNING"
    peft_options: ClassVar[dict[str, Any]] = {"prefix_projection": False}
    learning_rate: ClassVar[float] = 1e-4

    num_virtual_tokens: PositiveInt = 20
    prefix_projection: bool = True
    encoder_hidden_size: PositiveInt = 512

    @model_validator(mode="after")
    def _used(self) -> Self:
        if not self.prefix_projection and self.encoder_hidden_size != 512:
            raise ValueError("encoder_hidden_size is the network's, and prefix_projection=false has none")
        return self

    @property
    def encoded(self) -> bool:
        """Whether a network makes the pairs."""
        return self.prefix_projection

    def rate(self, width: int) -> float:
        """The network's rate falls with the width; the pairs are vectors, and learn at the same rate everywhere."""
        return super().rate(width) if self.encoded else _PAIRS_RATE

    def build(self, site: Site) -> AdapterModule:  # noqa: ARG002  the base's config has the sizes
        """The pairs of all layers."""
        return PrefixLayer(self)

    def peft_sizes(self, site: Site) -> dict[str, Any]:  # noqa: ARG002
        """None: the config has the key's heads."""
        return {}

    def blank(self, site: Site, own: Tensors) -> VirtualTokens:  # noqa: ARG002  nor has the site
        """A module of the sizes of `own`."""
        module = PrefixLayer(self)
        hidden, width = own["transform.0.weight"].shape
        module.make(width, hidden, own["transform.2.weight"].shape[0])
        return module


class PrefixLayer(CachePairs):
    """Puts num_virtual_tokens pairs into the cache of every layer."""

    def __init__(self, spec: Prefix) -> None:
        super().__init__(spec.num_virtual_tokens)
        self.projected, self.hidden = spec.prefix_projection, spec.encoder_hidden_size

    def begin(self) -> None:
        """Make the parameters, whose sizes the base's cache says."""
        super().begin()
        self.make(self.width, self.hidden, self.numbers)

    def make(self, width: int, hidden: int, out: int) -> None:
        """The pairs, (count, out), or the network that makes them out of (count, width)."""
        import torch
        from torch import nn

        if self.projected:
            self.embedding = nn.Embedding(self.count, width)
            self.transform = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, out))
        else:
            self.tokens = nn.Parameter(torch.empty(self.count, out).normal_(std=0.02))

    def virtual(self) -> "Tensor":
        """The pairs, (count, layers * 2 * kv_heads * head_dim) where all layers are alike."""
        if not self.projected:
            return super().virtual()
        pairs: Tensor = self.transform(self.embedding.weight)
        return pairs


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """Prefix tuning."""
    return [Prefix]
