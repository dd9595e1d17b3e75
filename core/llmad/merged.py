"""Merged: a base with adapters folded into its weights, compared with the adapted base and written as a model."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmad import adapter_dir, pretrained, prompting
from llmad.activation import disabled
from llmad.attachment import detach, state
from llmad.averaging import average
from llmad.dequantised import dequantised
from llmad.errors import LlmadWarning, ModelError, UsageError
from llmad.files import check_writable, write_json
from llmad.folder import appearing
from llmad.memory import enough_memory
from llmad.merging import merge
from llmad.prompt import Prompt
from llmad.quantization import quantization
from llmad.train import accelerator

PROMPT = "llmad_prompt.json"  # beside the merged weights: what they are to be asked with

# How far merged logits may be from unmerged ones, as a share of the largest: rounding, and no more.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
_HALF_TOLERANCE = 5e-2
_ROWS, _LENGTH = 4, 32


@dataclass(frozen=True)
class Merged:
    """What merging did.

    Attributes:
        output: the folder of the merged model.
        backbone: the base.
        quantization: how the base is quantised that the merged model is compared with; the merged one is plain.
        adapters: the adapter directories.
        effect: largest change of a logit by the adapter.
        difference: largest difference of a logit between the adapted and the merged model.
        same_choice: share of positions at which both find the same token likeliest.
        dtype: of the merged weights.
    """

    output: str
    backbone: str
    quantization: str | None
    adapters: tuple[str, ...]
    effect: float
    difference: float
    same_choice: float
    dtype: str

    def describe(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return asdict(self)


@enough_memory("merge on a machine with more memory")
def merge_adapters(
    folders: Sequence[Path],
    output: Path,
    backbone: str | None,
    weights: Sequence[float],
    quantize: str | None = None,
    dequantize: bool = False,
    any_prompt: bool = False,
) -> Merged:
    """Fold adapters into their base, compare the logits before and after, and write the model.

    Args:
        folders: run or adapter directories; several are averaged first.
        output: the folder to make.
        backbone: the base; the one recorded with the adapters where None.
        weights: of the adapters in their average; equal where empty.
        quantize: how the base is quantised, or `none`; as recorded with the adapters where None.
        dequantize: merge into plain weights made of the quantised ones, since these cannot be written.
        any_prompt: average adapters that were trained with different prompts, too.

    Raises:
        UsageError: the output is there already, the weights do not fit, no base is named, there is nothing to
            dequantise, or the adapters were trained with different prompts.
        ModelError: an adapter is not linear or does not belong to the base, the base is quantised and is to stay so,
            or merging changed the logits by more than rounding; nothing is written.
        StorageError: the folder cannot be written.
    """
    _check(folders, output, weights)
    adapters = [adapter_dir.run_adapter(folder) for folder in folders]
    abouts = {str(folder): adapter_dir.read_about(folder) for folder in adapters}
    prompt = _one_prompt(abouts, any_prompt)
    name = pretrained.one_backbone(backbone, abouts.values())
    how = pretrained.common_quantization(name, abouts.values(), quantize)
    base = pretrained.load(name, pretrained.common_dtype(abouts.values()), accelerator().device, quantize=how)
    quantised = quantization(base.model)
    _check_quantised(name, quantised, dequantize)
    names = _attach(base.model, adapters, abouts, weights or [1.0] * len(adapters))
    ids = _ids(base.model)
    with disabled(base.model):
        plain = _logits(base.model, ids)
    adapted = _logits(base.model, ids)
    wanted = adapted
    if dequantize:
        base = _dequantised(base)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LlmadWarning)  # the base is quantised no longer, as was asked
            names = _attach(base.model, adapters, abouts, weights or [1.0] * len(adapters))
        wanted = _logits(base.model, ids)
    _merge(base.model, names, " and ".join(map(str, adapters)))
    found = _logits(base.model, ids)
    result = Merged(
        output=str(output),
        backbone=name,
        quantization=quantised,
        adapters=tuple(str(folder) for folder in adapters),
        effect=float((adapted - plain).abs().max()),
        difference=float((found - adapted).abs().max()),
        same_choice=float((found.argmax(-1) == adapted.argmax(-1)).float().mean()),
        dtype=str(base.model.dtype).removeprefix("torch."),
    )
    _check_same(result, float((found - wanted).abs().max()), wanted, base.model.dtype)
    with appearing(output.absolute()) as folder:
        base.model.generation_config = pretrained.generation_config(name)
        base.model.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        if prompt:
            write_json(folder / PROMPT, prompting.record(prompt))
    return result


def _one_prompt(abouts: Mapping[str, Mapping[str, Any]], any_prompt: bool) -> Prompt | None:
    """The prompt that the merged model is to be asked with; None where the adapters say none, or several."""
    found = [prompting.recorded(about, Path(folder) / adapter_dir.ABOUT) for folder, about in abouts.items()]
    prompts = {prompt.fingerprint(): prompt for prompt in found if prompt}
    if len(prompts) > 1 and not any_prompt:
        reason = f"the adapters were trained with {len(prompts)} different prompts"
        raise UsageError(
            "several-prompts", reason, "a merged model answers to one; --any-prompt merges them none the less"
        )
    return next(iter(prompts.values())) if len(prompts) == 1 else None


def _check(folders: Sequence[Path], output: Path, weights: Sequence[float]) -> None:
    if weights and (len(weights) != len(folders) or len(folders) == 1):
        raise UsageError("bad-weights", f"{len(weights)} weights for {len(folders)} adapters", "give one for each")
    if output.exists() and (not output.is_dir() or any(output.iterdir()) or not output.name):
        raise UsageError("output-exists", f"{output} is there already", "give another --output")
    check_writable(output)


def _check_quantised(name: str, quantised: str | None, dequantize: bool) -> None:
    if quantised and not dequantize:
        raise ModelError(
            "quantised-base",
            f"{name} is quantised as {quantised}: its weights can be read, and not written",
            "--dequantize merges into plain weights made of them, --quantize none into the base as it is stored",
        )
    if dequantize and not quantised:
        raise UsageError(
            "not-quantised", f"{name} is not quantised, and has nothing to dequantise", "merge it as it is"
        )


def _dequantised(base: pretrained.Pretrained) -> pretrained.Pretrained:
    """The plain base; adapters are taken out of the quantised one before."""
    for name in reversed(list(state(base.model).adapters)):
        detach(base.model, name)
    return replace(base, model=dequantised(base.model))


def _attach(model: Any, folders: Sequence[Path], abouts: dict[str, Any], weights: Sequence[float]) -> list[str]:
    """Load what is to be merged; the names in the order of merging."""
    if len(folders) == 1:
        adapter_dir.load(model, folders[0])
        return list(state(model).adapters)
    shares = {}
    for number, (folder, weight) in enumerate(zip(folders, weights, strict=True), 1):
        if abouts[str(folder)].get("built_on"):
            raise ModelError("not-mergeable", f"{folder} builds on others and has no average", "merge it alone first")
        shares[f"adapter-{number}"] = weight
        adapter_dir.load(model, folder, f"adapter-{number}")
    average(model, shares)
    return ["average"]


def _merge(model: nn.Module, names: Sequence[str], where: str) -> None:
    for name in names:
        try:
            merge(model, name)
        except ModelError as error:
            raise ModelError(error.code, f"{where}: {error}", error.hint) from None


def _ids(model: nn.Module) -> Tensor:
    """Random tokens, the same each time; (rows, length)."""
    table: Any = model.get_input_embeddings()  # type: ignore[operator]  # every transformers model has it
    generator = torch.Generator().manual_seed(0)
    return torch.randint(table.num_embeddings, (_ROWS, _LENGTH), generator=generator).to(table.weight.device)


@torch.inference_mode()
def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    """(rows, length, vocabulary) in float32, on the CPU."""
    logits: Tensor = model.eval()(input_ids=ids, use_cache=False).logits
    return logits.float().cpu()


def _check_same(result: Merged, difference: float, wanted: Tensor, dtype: torch.dtype) -> None:
    """Merging itself may only round; what dequantising does before it is no fault of it, and is told."""
    tolerance = _TOLERANCE.get(dtype, _HALF_TOLERANCE)
    share = difference / float(wanted.abs().max())
    lost = difference > result.effect / 2 and share > _TOLERANCE[torch.float32]
    if not share <= tolerance or lost:
        raise ModelError(
            "merge-differs",
            f"merging changed logits by {share:.2g} of the largest, the adapter by {result.effect:.2g}; rounding to "
            f"{result.dtype} allows {tolerance:g} of the largest and half of the adapter's change",
            "keep the adapter attached, or merge into a base of a wider dtype",
        )
