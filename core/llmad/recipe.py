"""Recipe: everything a run is told, validated as a whole before anything heavy is imported.

Keys are named as in Hugging Face's trainers where they have the same meaning. A recipe is put together from layers
(built-in defaults, a file, the command line); later layers win, and every wrong key or value is reported at once.
"""

import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from llmad import hub, strict_json, strict_yaml
from llmad.columns import Mapped
from llmad.errors import DataError, LlmadError, ModelError, UsageError, nearest, together
from llmad.prompting import Choice
from llmad.quantizer import UNQUANTISED
from llmad.registry import parse_quantizer, parse_spec, registry
from llmad.source import find

DeviceMap = str | int | dict[str, str | int] | None
_AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")  # accelerate's ways to fill the devices there are
_DEVICE = r"(cpu|mps|(cuda|xpu|npu|hpu|mlu|musa)(:\d+)?)"

Layer = tuple[str, Mapping[str, Any]]  # where the values come from, in words; and the values


class Recipe(BaseModel):
    """What a training run is told.

    Attributes:
        backbone: a built-in name, a local Hugging Face folder, or a hub id.
        adapter: an adapter spec, such as `lora[r=16]`.
        frozen: name to directory of trained adapters that the new one builds on; they stay as they are.
        task: the task, which brings the prompt and reads the answers.
        data: a file of rows, a folder that holds the task's file, or a place on the hub, `hub` or
            `hub:OWNER/NAME@COMMIT`; None for a task that makes its own.
        columns: wanted column to the one that the data has instead, such as `{instruction: question}`.
        output_dir: the run directory; a free name under `runs` where None.
        prompt: how a row becomes text: `task` as the task says, `verbatim` as it stands, `chat` in the tokenizer's chat
            template, `paper` as in the paper's scripts; what the rows' layout calls for where None.
        seed: fixes adapter weights, order of rows and dropout.
        max_length: longest row in tokens; longer rows are left out, and counted.
        train_on_prompt: learn to write the question too, and not the answer alone.
        num_train_epochs: passes over the rows.
        max_steps: optimizer steps; overrides the epochs.
        packing: put the rows of a forward pass end to end where the model keeps them apart; pad them elsewhere.
        per_device_train_batch_size: rows in one forward pass of one process.
        gradient_accumulation_steps: forward passes in one optimizer step.
        auto_find_batch_size: before the first step, pick how many rows go through at once, as many as fit in memory;
            those of an optimizer step stay as the two keys above say, and a continued run keeps what was picked.
        gradient_checkpointing: keep the input of each block alone, and compute the block again for its gradients: less
            memory, more time.
        learning_rate: peak learning rate; the adapter method's own where None.
        lr_scheduler_type: what follows the warm-up.
        warmup_ratio: share of the steps over which the learning rate rises.
        weight_decay: AdamW's.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them alone.
        logging_steps: steps between two lines of `metrics.jsonl`.
        save_steps: steps between two checkpoints; at the end only where None.
        save_total_limit: checkpoints kept.
        dtype: of the base; `auto` takes what its weights are stored in.
        device_map: where the base's parts go: `auto`, a device, or a table of module to device, `cpu` or `disk`; all on
            one device, the accelerator if there is one, where None.
        offload_folder: with `device_map`, where weights on `disk` go that cannot stay in the backbone's own files.
        quantize: the quantizer of the base's linear maps, such as `nf4`; as they are stored where None.
        do_eval: score base and adapter on the task's test rows after training.
        max_eval_samples: how many test rows.
        per_device_eval_batch_size: rows generated at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: str
    adapter: str
    frozen: dict[str, str] = Field(default_factory=dict)
    task: str
    data: str | None = None
    columns: Mapped | None = None
    output_dir: str | None = None
    prompt: Choice | None = None
    seed: int = Field(0, ge=0, lt=1 << 63)
    max_length: PositiveInt = 512
    train_on_prompt: bool = False
    packing: bool = True
    num_train_epochs: float = Field(1, gt=0, le=1_000_000)
    max_steps: int | None = Field(None, gt=0, lt=100_000_000)  # a checkpoint's name has eight digits
    per_device_train_batch_size: PositiveInt = 16
    gradient_accumulation_steps: PositiveInt = 1
    auto_find_batch_size: bool = False
    gradient_checkpointing: bool = False
    learning_rate: PositiveFloat | None = None
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: NonNegativeFloat = 1.0
    logging_steps: PositiveInt = 10
    save_steps: PositiveInt | None = None
    save_total_limit: PositiveInt = 2
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device_map: DeviceMap = None
    offload_folder: str | None = None
    quantize: str | None = None
    do_eval: bool = False
    max_eval_samples: PositiveInt = 200
    per_device_eval_batch_size: PositiveInt = 64

    @field_validator("*", mode="before")
    @classmethod
    def _counted(cls, value: Any, info: ValidationInfo) -> Any:
        return no_truth(cls, value, info)

    @field_validator("frozen")
    @classmethod
    def _named(cls, frozen: dict[str, str]) -> dict[str, str]:
        for name in frozen:
            if name == "default" or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"{name!r} cannot name a frozen adapter; use letters, digits, - and _, not 'default'")
        return frozen

    @field_validator("device_map", mode="before")
    @classmethod
    def _place(cls, device_map: Any) -> Any:
        return placed(device_map)

    @field_validator("offload_folder")
    @classmethod
    def _needed(cls, folder: str | None, info: ValidationInfo) -> str | None:
        if folder is not None and info.data.get("device_map", "unknown") is None:
            raise ValueError("only a device_map puts weights on disk; give device_map too")
        return folder


def no_truth(model: type[BaseModel], value: Any, info: ValidationInfo) -> Any:
    """Let `true` and `false` pass where they are asked for alone, and text that can be written down.

    Raises:
        ValueError: the key wants something else.
    """
    if isinstance(value, bool) and model.model_fields[info.field_name or ""].annotation is not bool:
        raise ValueError("true and false are no value of it")
    if isinstance(value, str) and re.search(r"[\ud800-\udfff]", value):  # bytes of a name that Python could not read
        raise ValueError("it is no UTF-8, and could not be written down; rename what it names")
    return value


def placed(device_map: Any) -> DeviceMap:
    """Read where a model's parts go.

    Raises:
        ValueError: it is no automatic placement, no device, and no table of them.
    """
    if device_map == {}:
        raise ValueError("the table is empty; write module to device, or leave device_map out")
    devices = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    for device in devices:
        known = device in _AUTOMATIC if device is device_map else device == "disk"
        number = isinstance(device, int) and not isinstance(device, bool) and device >= 0
        if not (known or number or device is device_map is None or re.fullmatch(_DEVICE, str(device))):
            raise ValueError(f"{device!r} is no device; write cpu, cuda:0 or such, {_AUTOMATIC[0]}, or a table")
    return cast(DeviceMap, device_map)


def load(layers: Sequence[Layer]) -> Recipe:
    """Put layers together.

    Raises:
        UsageError: every wrong key, value and name, one a line.
        DataError: the data file is missing, and nothing else is wrong.
    """
    problems = _unknown_keys(layers)
    values = {key: value for _, layer in layers for key, value in layer.items() if key in Recipe.model_fields}
    origins = {key: origin for origin, layer in layers for key in layer}
    for key in ("adapter", "quantize"):
        values[key] = text_form(values.get(key))
    if values["quantize"] == UNQUANTISED:
        values["quantize"] = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += [_fault(item, origins) for item in error.errors()]
        recipe = None
    problems += _unknown_names(values)
    missing = _missing_data(values)
    if problems or recipe is None:
        raise together(problems + missing)
    if missing:
        raise missing[0]
    return recipe


def read(path: Path) -> Layer:
    """Read a recipe file: TOML, YAML or JSON, told apart by its ending.

    Raises:
        UsageError: there is no such file, or it cannot be read as what its ending says.
    """
    readers: dict[str, Callable[[str], Any]] = {
        ".toml": tomllib.loads,
        ".yaml": strict_yaml.parse,
        ".yml": strict_yaml.parse,
        ".json": strict_json.parse,
    }
    if path.suffix not in readers:
        raise UsageError("bad-recipe", f"{path}: a recipe ends in {', '.join(readers)}")
    try:
        content = readers[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("no-recipe", f"{path}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError("bad-recipe", f"{path}: {_said(error)}") from None
    if not isinstance(content, dict):
        raise UsageError("bad-recipe", f"{path}: a recipe is a table of keys and values")
    return str(path), content


def read_pairs(pairs: Sequence[str], given: Collection[str] = ()) -> Layer:
    """Read `key=value` pairs from the command line; values are read as YAML scalars.

    Args:
        pairs: the texts.
        given: the keys that have an option of their own, which was used.

    Raises:
        UsageError: a pair without a key or an equals sign, a key that is given twice, or a value that is no YAML.
    """
    values = dict[str, Any]()
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UsageError("bad-option", f"--set {pair!r} is not key=value")
        if (key := key.strip()) in values or key in given:
            raise UsageError("bad-option", f"--set {key} is given twice", "give it once")
        try:
            values[key] = strict_yaml.parse(value)
        except (ValueError, yaml.YAMLError) as error:
            raise UsageError("bad-option", f"--set {pair!r}: {_said(error)}") from None
    return "--set", values


def _said(error: Exception) -> str:
    return " ".join(str(error).replace(' in "<unicode string>",', " at").split())


def text_form(value: Any) -> Any:
    """A table such as `{name = "lora", r = 16}` as the text `lora[r=16]`."""
    if not isinstance(value, Mapping) or "name" not in value:
        return value
    options = ",".join(
        f"{key}={'+'.join(map(str, option)) if isinstance(option, list) else option}"
        for key, option in value.items()
        if key != "name"
    )
    return f"{value['name']}[{options}]"


def _unknown_keys(layers: Sequence[Layer]) -> list[LlmadError]:
    known = list(Recipe.model_fields)
    return [
        UsageError("unknown-key", f"{origin}: there is no key {key!r}", nearest(str(key), known))
        for origin, layer in layers
        for key in layer
        if key not in known
    ]


def _fault(item: Any, origins: Mapping[str, str]) -> LlmadError:
    key = str(item["loc"][0])
    given = "" if item["type"] == "missing" else f", not {item['input']!r}"
    return UsageError("bad-value", f"{origins.get(key, 'recipe')}: {key}: {item['msg']}{given}")


def _unknown_names(values: Mapping[str, Any]) -> list[LlmadError]:
    checks = {"backbone": find, "adapter": parse_spec, "quantize": parse_quantizer, "task": registry().task}
    problems: list[LlmadError] = []
    for key, check in checks.items():
        if isinstance(values.get(key), str):
            try:
                check(values[key])
            except LlmadError as error:
                problems.append(error)
    return problems


def _missing_data(values: Mapping[str, Any]) -> list[LlmadError]:
    data, frozen = values.get("data"), values.get("frozen")
    missing: list[LlmadError] = []
    if isinstance(data, str) and hub.is_place(data):
        missing += hub.faults(data)
    elif isinstance(data, str) and not os.path.exists(data):  # noqa: PTH110  pathlib's raises where it is too long
        missing.append(DataError("no-data", f"{data}: there is no such file or folder"))
    for name, folder in frozen.items() if isinstance(frozen, Mapping) else ():
        if not os.path.exists(str(folder)):  # noqa: PTH110
            missing.append(ModelError("no-adapter", f"frozen: {name}: {folder} is no adapter directory"))
    return missing
