"""Prompt tuning: learned virtual tokens in front of every text.

    embeddings = [P; E(tokens)]        P (num_virtual_tokens, width)

Lester et al., 2021 (arXiv 2104.08691), section 2. P starts as the embeddings of tokens drawn at random from the
vocabulary (`init=vocab`, section 3.2), or N(0, 0.02) (`init=paper`), or zero; there are 100, as in the paper.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from llmad import AdapterModule, AdapterSpec, Site, hookimpl
from llmad_plugins.adapters.sequence_tokens import SequenceTokens
from llmad_plugins.adapters.virtual import embedding
from llmad_plugins.adapters.virtual_options import VirtualOptions


class Prompt(VirtualOptions):
    """Learned virtual tokens before the text (Lester et al., 2021).

    Attributes:
        init: what they start as: tokens of the vocabulary, N(0, 0.02) or zero.
    """

    name = "prompt"
    peft_type = "PROMPT_TUNING"
    learning_rate: ClassVar[float] = 1e-2
    rate_falls_with_width: ClassVar[bool] = False

    init: Literal["vocab", "paper", "zero"] = "vocab"

    def build(self, site: Site) -> AdapterModule:
        """One matrix of virtual tokens."""
        return PromptLayer(self.num_virtual_tokens, site.out_features, self.init)

    @classmethod
    def reads_peft(cls, config: Mapping[str, Any]) -> bool:
        """PEFT's prompts, also those that an encoder made: their files hold the embeddings alone."""
        return config.get("peft_type") in (cls.peft_type, "P_TUNING")


class PromptLayer(SequenceTokens):
    """Puts (num_virtual_tokens, width) learned embeddings before the embeddings of the text."""

    def __init__(self, count: int, width: int, init: str) -> None:
        import torch
        from torch import nn

        super().__init__(count)
        self.init = init
        self.tokens = nn.Parameter(torch.zeros(count, width))
        if init == "paper":
            nn.init.normal_(self.tokens, std=0.02)

    def begin(self) -> None:
        """Start from the embeddings of random tokens of the vocabulary."""
        import torch

        super().begin()
        if self.init == "vocab":
            table = embedding(self.host)
            drawn = torch.randint(table.num_embeddings, (self.count,))
            with torch.no_grad():
                self.tokens.copy_(table(drawn.to(self.tokens.device)))


@hookimpl
def llmad_adapters() -> list[type[AdapterSpec]]:
    """Prompt tuning."""
    return [Prompt]
