"""Quantizer: a way to keep the base's weights in few bits, in text `nf4[double_quant=false]`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from llmad.options import Options

if TYPE_CHECKING:
    from torch import Tensor, nn

UNQUANTISED = "none"  # what users write for no quantizer, where one would be taken otherwise


class Quantizer(Options):
    """Base class of a quantizer: a frozen, validated config that has a base loaded quantised, and reads its weights.

    A subclass sets `name`, its docstring's first line is its summary, and its fields are the options. What it says of
    a module does not depend on them, so that the quantizer of a module that is already there can be found: every
    installed one is asked whether it `owns` the module.
    """

    def config(self, dtype: str) -> Any:
        """What transformers' `from_pretrained` takes as `quantization_config`.

        Args:
            dtype: what the run was told for the rest of the base: `float32`, `bfloat16`, `float16`, or `auto`.
        """
        raise TypeError(f"{type(self).__name__} does not define config(self, dtype), asked for {dtype}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self | None:  # noqa: ARG003  by default no config is known
        """The quantizer that a model's `quantization_config` means, as a mapping; None where it is another's."""
        return None

    @classmethod
    def prepare(cls, model: "nn.Module") -> None:
        """Make a model ready that was just loaded with modules of its own; by default nothing."""

    @classmethod
    def owns(cls, module: "nn.Module") -> bool:
        """Whether the module's weight is quantised by this; quick, as every module of a model is asked about."""
        raise TypeError(f"{cls.__name__} does not define owns(cls, module), asked for a {type(module).__name__}")

    @classmethod
    def dequantize(cls, module: "nn.Module") -> "Tensor":
        """The weight of a module of its own, (out_features, in_features), in a floating-point dtype."""
        raise TypeError(f"{cls.__name__} does not define dequantize(cls, module), asked for {type(module).__name__}")

    @classmethod
    def shape(cls, module: "nn.Module") -> tuple[int, int]:
        """(out_features, in_features) of a module of its own, however its weight is packed."""
        return int(module.out_features), int(module.in_features)  # type: ignore[arg-type]  # as any linear map has
