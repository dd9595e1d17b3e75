"""Dequantised: a quantised model as a plain one, with the weights that it in truth computes with."""

from typing import Any

from torch import nn

from llmad import weights
from llmad.match import features
from llmad.quantization import owners
from llmad.site import PATH_ROLE, Site


def dequantise(model: Any, skeleton: nn.Module) -> None:
    """Put plain modules in the place of the quantised ones.

    Args:
        model: a quantised transformers model without adapters; it stays the same object.
        skeleton: the plain model without weights, which says what the plain modules are.
    """
    for path, quantizer in owners(model).items():
        quantised = model.get_submodule(path)
        weight, bias = quantizer.dequantize(quantised), getattr(quantised, "bias", None)
        plain = skeleton.get_submodule(path).to_empty(device=weight.device).to(model.dtype).requires_grad_(False)
        weights.write(plain, Site(path, PATH_ROLE, None, *features(plain)), weight, bias)
        model.set_submodule(path, plain.train(quantised.training))
    _forget(model)


def _forget(model: Any) -> None:
    """What transformers keeps about the quantisation: it would be written with the model."""
    if (keeper := getattr(model, "hf_quantizer", None)) is not None:
        keeper.remove_quantization_config(model)
    for mark in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        vars(model).pop(mark, None)
