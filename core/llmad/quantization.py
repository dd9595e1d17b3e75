"""Quantization of a model: which of its weights are quantised, by whom, and how many weights there are in truth."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from torch import nn

from llmad.quantizer import Quantizer
from llmad.registry import registry


def owner(module: nn.Module) -> type[Quantizer] | None:
    """The quantizer whose module it is; None where the weight is plain, or quantised by something not installed."""
    return _owner(module, registry().quantizers())


def owners(model: nn.Module) -> dict[str, type[Quantizer]]:
    """The paths of the quantised modules, each with its quantizer."""
    every = registry().quantizers()
    found = ((path, _owner(module, every)) for path, module in model.named_modules())
    return {path: quantizer for path, quantizer in found if quantizer}


def prepare(model: nn.Module) -> None:
    """Let the quantizers of a model that was just loaded make it ready."""
    for quantizer in dict.fromkeys(owners(model).values()):
        quantizer.prepare(model)


def quantization(model: nn.Module) -> str | None:
    """How a model is quantised: with every option where its config tells them; None where it is plain."""
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    if config:
        return describe(config if isinstance(config, Mapping) else cast(Any, config).to_dict())
    return "+".join(sorted({quantizer.name for quantizer in owners(model).values()})) or None


def describe(config: Mapping[str, Any]) -> str:
    """The full text of the quantizer that a `quantization_config` means; its method's bare name where none knows it."""
    known = (quantizer.of(config) for quantizer in registry().quantizers())
    quantizer = next((quantizer for quantizer in known if quantizer), None)
    return quantizer.in_full() if quantizer else str(config.get("quant_method", "unknown"))


def sizes(model: nn.Module) -> Iterator[tuple[str, tuple[int, ...], nn.Parameter | None]]:
    """Every parameter with its name and its true shape; None in place of one whose bits a quantizer keeps as it likes.

    A quantised weight counts as the plain weight that it stands for: packed bits, scales and tables of it do not show.
    The bias beside it shows without its values: bitsandbytes, for one, casts it to what it computes in.
    """
    quantised = owners(model)
    for path, quantizer in quantised.items():
        module = model.get_submodule(path)
        shape = quantizer.shape(module)
        yield f"{path}.weight", shape, None
        if getattr(module, "bias", None) is not None:
            yield f"{path}.bias", shape[:1], None
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] not in quantised:
            yield name, tuple(parameter.shape), parameter


def _owner(module: nn.Module, every: Sequence[type[Quantizer]]) -> type[Quantizer] | None:
    return next((quantizer for quantizer in every if quantizer.owns(module)), None)
