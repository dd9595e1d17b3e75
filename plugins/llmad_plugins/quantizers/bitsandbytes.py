"""bitsandbytes: linear maps in 8 or 4 bits; embedding, head and norms stay as they are.

    int8    W ~ s_i / 127 * Q_ij,  Q in int8, s one scale a row; columns of x beyond `threshold` are computed unrounded
    nf4     W ~ a_b * q[Q],  Q in 4 bits, q the quantiles of a normal, a one scale a block of 64; a in 8 bits itself
    fp4     the same with q the 4-bit floats

Dettmers et al., 2022 (LLM.int8(), arXiv 2208.07339), section 3; 2023 (QLoRA, arXiv 2305.14314), section 3.
"""

import logging
import sys
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from pydantic import NonNegativeFloat

from llmad import Quantizer, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class Int8(Quantizer):
    """8 bits a weight, one scale a row (LLM.int8(); Dettmers et al., 2022).

    Attributes:
        threshold: features of the input beyond it are computed unrounded.
    """

    name = "int8"

    threshold: NonNegativeFloat = 6.0

    def config(self, dtype: str) -> Any:  # noqa: ARG002  it computes in int8 whatever the rest is in
        """Eight bits, with the threshold."""
        from transformers import BitsAndBytesConfig

        _quiet()
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=self.threshold)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self | None:
        """Read bitsandbytes' config of 8 bits."""
        if config.get("quant_method") != "bitsandbytes" or not config.get("load_in_8bit"):
            return None
        _quiet()
        return cls(threshold=config.get("llm_int8_threshold", 6.0))

    @classmethod
    def owns(cls, module: "nn.Module") -> bool:
        """A linear whose weight is in int8 for good."""
        return _is(module, "Linear8bitLt") and not cast(Any, module).state.has_fp16_weights

    @classmethod
    def dequantize(cls, module: "nn.Module") -> "Tensor":
        """(out_features, in_features) in float32."""
        import bitsandbytes

        linear = cast(Any, module)
        scales = linear.state.SCB if linear.weight.SCB is None else linear.weight.SCB  # the first call moves them
        weight: Tensor = bitsandbytes.functional.int8_vectorwise_dequant(linear.weight.data, scales)
        return weight


class FourBit(Quantizer):
    """4 bits a weight, one scale a block of 64.

    Attributes:
        double_quant: keep the blocks' scales in 8 bits themselves, which saves 0.37 bits a weight.
        compute_dtype: what the weights are dequantised to and multiplied in; the run's dtype, or bfloat16, for `auto`.
    """

    code: ClassVar[Literal["nf4", "fp4"]]

    double_quant: bool = True
    compute_dtype: Dtype = "auto"

    def config(self, dtype: str) -> Any:
        """Four bits, with everything said."""
        import torch
        from transformers import BitsAndBytesConfig

        asked = next((name for name in (self.compute_dtype, dtype) if name != "auto"), "bfloat16")
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.code,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, asked),
        )

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self | None:
        """Read bitsandbytes' config of this code."""
        ours = config.get("quant_method") == "bitsandbytes" and config.get("load_in_4bit")
        if not ours or config.get("bnb_4bit_quant_type") != cls.code:
            return None
        dtype = str(config.get("bnb_4bit_compute_dtype") or "float32").removeprefix("torch.")
        return cls.model_validate({"double_quant": config.get("bnb_4bit_use_double_quant"), "compute_dtype": dtype})

    @classmethod
    def prepare(cls, model: "nn.Module") -> None:
        """Where a CPU multiplies bfloat16 the bits are rearranged, in units that some layers are too small for."""
        for module in filter(cls.owns, model.modules()):
            linear = cast(Any, module)
            if linear.in_features % 64 or linear.out_features % 32:
                linear.support_avx512bf16_for_cpu = False

    @classmethod
    def owns(cls, module: "nn.Module") -> bool:
        """A linear whose weight is in this code."""
        return _is(module, "Linear4bit") and cast(Any, module).weight.quant_type == cls.code

    @classmethod
    def dequantize(cls, module: "nn.Module") -> "Tensor":
        """(out_features, in_features) in the dtype that the weight had before."""
        from bitsandbytes import functional

        bits, state = cast(Any, module).weight.data, cast(Any, module).weight.quant_state
        if getattr(state, "packing_format_for_cpu", False):
            bits, state = _unpacked(bits, state)
        weight: Tensor = functional.dequantize_4bit(bits, state)
        return weight


class NF4(FourBit):
    """4-bit NormalFloat with its scales in 8 bits (QLoRA; Dettmers et al., 2023)."""

    name = "nf4"
    code = "nf4"


class FP4(FourBit):
    """4-bit floats, otherwise as nf4 (Dettmers et al., 2023)."""

    name = "fp4"
    code = "fp4"


def _unpacked(bits: "Tensor", state: Any) -> tuple["Tensor", Any]:
    """Bits and scales in their usual order: CPUs with bfloat16 products rearrange them when they first compute.

    The library's own way back (`state_dict`) would put the scales in 8 bits once more, and change the base.
    """
    from bitsandbytes import functional

    scales, state = state.absmax.T.reshape(-1).float(), copy(state)
    state.original_nested = False
    bits, state = functional._convert_weight_packed_for_cpu_inverse(bits, state)
    state.absmax = scales
    return bits, state


def _is(module: "nn.Module", name: str) -> bool:
    """Whether it is a module of bitsandbytes, which is not imported for the question: before it is, there is none."""
    library = sys.modules.get("bitsandbytes")
    return library is not None and isinstance(module, getattr(library.nn, name))


def _quiet() -> None:
    """Pass over what bitsandbytes says at each product of an int8 linear with an input that is not float16."""
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_news)


def _news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")


@hookimpl
def llmad_quantizers() -> list[type[Quantizer]]:
    """bitsandbytes' codes."""
    return [Int8, NF4, FP4]
