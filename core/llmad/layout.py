"""Layout: where everything is in one model, by the rules of a backbone or, where nobody wrote any, by its structure."""

import re
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import nn

from llmad.backbone import Backbone
from llmad.errors import ModelError
from llmad.site import Site

NUMBER = re.compile(r"(?<=\.)\d+(?=\.|\[|$)")  # of a layer or an expert, in a path
Confidence = Literal["described", "sure", "likely", "none"]


@dataclass(frozen=True)
class Finding:
    """What was made of one place, and why.

    Attributes:
        path: the module, or the module and the parameter in it.
        role: the role it has; empty where it has none.
        confidence: `described` by a backbone, `sure` where name and structure agree, `likely` where one of them had to
            do, `none` where it has no role.
        why: in words.
    """

    path: str
    role: str
    confidence: Confidence
    why: str


@dataclass(frozen=True)
class Layout:
    """The blocks and the sites of a model.

    Attributes:
        backbone: the name of the backbone that describes it; empty where its structure did.
        blocks: the path of each block, in order.
        sites: every site, the outer ones first, then block by block.
        findings: how each site was found, and what is left without a role.
    """

    backbone: str
    blocks: tuple[str, ...]
    sites: tuple[Site, ...]
    findings: tuple[Finding, ...] = ()

    def layer(self, path: str) -> int | None:
        """The block that a module is in; None outside the blocks."""
        inside = (layer for layer, block in enumerate(self.blocks) if f"{path}.".startswith(f"{block}."))
        return next(inside, None)


def features(module: nn.Module) -> tuple[int, int]:
    """(in_features, out_features) of a linear map."""
    if hasattr(module, "nf"):  # transformers' Conv1D, a linear map with its weight transposed
        return cast(Any, module).nx, cast(Any, module).nf
    return cast(nn.Linear, module).in_features, cast(nn.Linear, module).out_features


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map."""
    return hasattr(module, "nf") or (hasattr(module, "in_features") and hasattr(module, "out_features"))


def width_of(model: nn.Module, embedding: nn.Module) -> int:
    """The width of the hidden states that go from block to block: the config's, or else the embedding's.

    Raises:
        ModelError: neither says it.
    """
    config = cast(Any, model).config
    for width in (getattr(config, "hidden_size", None), getattr(embedding, "embedding_dim", None)):
        if isinstance(width, int):
            return width
    text = config.get_text_config(decoder=True)
    if isinstance(width := getattr(text, "hidden_size", None), int):
        return width
    raise ModelError("no-width", f"the config of {type(model).__name__} does not say how wide its blocks are")


def wrong_class(model: nn.Module, rules: Backbone) -> ModelError:
    """The refusal of a model that lacks the blocks that its description speaks of."""
    kind = cast(Any, model).config.model_type
    return ModelError(
        "undescribed-model",
        f"backbone {rules.name} expects {rules.blocks!r} in a {kind} model; {type(model).__name__} has none",
        "load the model with its language-modelling head (AutoModelForCausalLM)",
    )
