"""Fingerprint of a base: the same for the same weights, in whatever floating-point dtype they are held."""

from hashlib import sha256

import torch
from torch import nn

from llmad.placement import stored

_SAMPLES = 32  # values a tensor; enough to tell two trainings apart, few enough to cost nothing


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the base's parameter names, shapes and a spread of values, adapters left out.

    Values are rounded to bfloat16 first, so that a float32 base and its bfloat16 copy agree.
    """
    digest = sha256()
    tied = getattr(model, "all_tied_weights_keys", {})  # offloading may make them parameters of their own
    for name, parameter in sorted(model.named_parameters()):
        if ".adapters." in f".{name}" or (parameter.is_meta and name in tied):
            continue
        tensor = stored(model, name) if parameter.is_meta else parameter
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLES)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if tensor.is_floating_point() and not tensor.is_meta:
            digest.update(flat[::step][:_SAMPLES].to(torch.bfloat16).view(torch.int16).cpu().numpy().tobytes())
    return digest.hexdigest()
