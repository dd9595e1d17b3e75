"""Dequantised: the plain model that a quantised one stands for, with the weights that it in truth computes with."""

import copy
from typing import Any

import torch

from llmad import weights
from llmad.errors import ModelError
from llmad.layout import features
from llmad.quantization import owners, quantization
from llmad.site import PATH_ROLE, Site


@torch.no_grad()
def dequantised(model: Any) -> Any:
    """A plain transformers model beside a quantised one without adapters, which stays as it is.

    It is made anew from the config, so that it is written as a model that was never quantised, in its kind's layout.

    Raises:
        ModelError: no installed quantizer reads the weights.
    """
    quantised = owners(model)
    if not quantised:
        reason = f"no installed quantizer reads weights that are quantised as {quantization(model)}"
        raise ModelError("no-weight", reason, "llmad list-quantizers shows what there is")
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device(model.device):
        plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    for path, quantizer in quantised.items():
        own, there = model.get_submodule(path), plain.get_submodule(path)
        place = Site(path, PATH_ROLE, None, *features(there))
        weights.write(there, place, quantizer.dequantize(own), getattr(own, "bias", None))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        path, _, key = name.rpartition(".")
        if path not in quantised:
            getattr(plain.get_submodule(path), key).copy_(tensor)
    return plain.eval().requires_grad_(False)
