"""Exam: what an evaluation is told, validated as a whole before anything heavy is imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, ValidationInfo, field_validator

from llmad import hub
from llmad.columns import Mapped
from llmad.errors import LlmadError, UsageError, nearest, together
from llmad.prompting import Choice
from llmad.quantizer import UNQUANTISED
from llmad.recipe import DeviceMap, no_truth, placed
from llmad.registry import parse_quantizer, registry
from llmad.task import Task

Protocol = Literal["strict", "paper"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


class Exam(BaseModel):
    """What an evaluation is told.

    Attributes:
        backbone: the base; the one recorded with the adapters where None.
        task: names of tasks; the one that each adapter was trained on where empty.
        data: a file of rows, a folder that holds the tasks' files, or a place on the hub.
        columns: wanted column to the one that the data has instead.
        seed: of the rows that a task generates.
        limit: at most so many rows a task.
        protocol: `strict` or `paper`.
        prompt: the prompt by name; the one that each adapter was trained with where None.
        max_new_tokens: how long an answer may be; as the protocol has it where None.
        stop: end an answer once it is declared, and not at its end alone; `strict` only.
        base: score the base too.
        batch_size: rows generated at once; it does not change the answers.
        dtype: of the base; as the adapters were trained where None.
        device_map: where the base's parts go; all on one device where None.
        quantize: the quantizer of the base's linear maps, or `none`; as recorded with the adapters where None.
        output: where answers and scores go, with a folder for each of several adapters; `evaluation` in each run
            directory where None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str | None = None
    task: tuple[str, ...] = ()
    data: str | None = None
    columns: Mapped | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    limit: PositiveInt | None = None
    protocol: Protocol = "strict"
    prompt: Choice | None = None
    max_new_tokens: PositiveInt | None = None
    stop: bool = True
    base: bool = True
    batch_size: PositiveInt = 64
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    device_map: DeviceMap = None
    quantize: str | None = None
    output: str | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _counted(cls, value: Any, info: ValidationInfo) -> Any:
        return no_truth(cls, value, info)

    @field_validator("task", mode="before")
    @classmethod
    def _split(cls, task: Any) -> Any:
        if not isinstance(task, str):
            return task
        return tuple(dict.fromkeys(name.strip() for name in task.split(",") if name.strip()))  # each asked once

    @field_validator("device_map", mode="before")
    @classmethod
    def _place(cls, device_map: Any) -> Any:
        return placed(device_map)


@dataclass(frozen=True)
class Manner:
    """How a task's rows are asked: all that may change an answer beside the model, the rows and the prompt.

    Attributes:
        protocol: `strict` or `paper`.
        max_new_tokens: how long an answer may be.
        num_beams: of the beam search; greedy where 1.
        stop: whether a row ends once its answer is declared.
        quirks: what `paper` does that `strict` does not, a sentence each.
    """

    protocol: str
    max_new_tokens: int
    num_beams: int = 1
    stop: bool = True
    quirks: tuple[str, ...] = ()


def read(given: Mapping[str, Any]) -> Exam:
    """Validate what an evaluation is told.

    Raises:
        UsageError: every wrong key, value and name, one a line.
    """
    problems: list[LlmadError] = [
        UsageError("unknown-key", f"there is no key {key!r}", nearest(str(key), list(Exam.model_fields)))
        for key in given
        if key not in Exam.model_fields
    ]
    try:
        exam = Exam.model_validate({key: value for key, value in given.items() if key in Exam.model_fields})
    except ValidationError as error:
        problems += [_fault(item) for item in error.errors()]
        raise together(problems) from None
    problems += _unknown_names(exam)
    problems += hub.faults(exam.data) if exam.data and hub.is_place(exam.data) else []
    if problems:
        raise together(problems)
    return exam


def manner(exam: Exam, task: Task) -> Manner:
    """How an exam asks the rows of a task."""
    if exam.protocol == "paper" and task.released:
        released = task.released
        return Manner(
            "paper", exam.max_new_tokens or released.max_new_tokens, released.num_beams, False, released.quirks
        )
    stop = exam.stop and exam.protocol == "strict"
    return Manner(exam.protocol, exam.max_new_tokens or task.max_new_tokens, stop=stop)


def _fault(item: Any) -> LlmadError:
    key, given = str(item["loc"][0]), item["input"]
    if item["type"] == "literal_error":
        known = str(item["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        return UsageError(f"unknown-{key}", f"there is no {key} {given!r}", nearest(str(given), known))
    return UsageError("bad-value", f"{key}: {item['msg']}, not {given!r}")


def _unknown_names(exam: Exam) -> list[LlmadError]:
    problems: list[LlmadError] = []
    checks = [(registry().task, name) for name in exam.task]
    for check, name in [*checks, (_quantizer, exam.quantize)]:
        try:
            check(name)  # type: ignore[arg-type]
        except LlmadError as error:
            problems.append(error)
    return problems


def _quantizer(text: str | None) -> None:
    if text not in (None, UNQUANTISED):
        parse_quantizer(text)
