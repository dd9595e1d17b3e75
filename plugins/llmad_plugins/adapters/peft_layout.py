"""What PEFT's directories have in common: names of tensors, targets that end a path, and whole linears only."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmad import Site

if TYPE_CHECKING:
    from torch import Tensor


def key(path: str, name: str) -> str:
    """PEFT's name of a tensor at a module."""
    return f"base_model.model.{path}.{name}"


def ending(targets: Iterable[str]) -> str:
    """A selector part for the modules whose path is one of the targets or ends in it."""
    return "path:" + "|".join(f"((.*\\.)?{re.escape(target)})" for target in targets)


def spread(site: Site, own: "Tensor", fill: float) -> "Tensor":
    """A role's share of an output, first dimension, as the whole linear's; the rows of other roles hold `fill`."""
    if site.rows is None:
        return own
    whole = own.new_full((site.rows.groups * site.rows.stride, *own.shape[1:]), fill)
    whole[site.rows.index()] = own
    return whole


def share(site: Site, whole: "Tensor") -> "Tensor":
    """The inverse of `spread`."""
    return whole[site.rows.index()] if site.rows else whole
