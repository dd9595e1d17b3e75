"""The record: what an adapter directory says of itself in JSON. It is parsed, and never obeyed."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmad import plain_file, strict_json
from llmad.errors import ModelError

FORMAT = 1
CONFIG, WEIGHTS, ABOUT, BUILT_ON = "adapter_config.json", "adapter_model.safetensors", "llmad.json", "built_on"
_LARGEST = 16 << 20  # bytes of JSON; the sites of a thousand experts have one million
_NAME = r"^[A-Za-z0-9_-]+\Z"  # of an adapter, and of its folder in `built_on`: no path


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, regex_engine="python-re")


class _Base(_Strict):
    model_type: str | None = None
    fingerprint: Any = None


class _Plugin(_Strict):
    distribution: str | None = None
    version: str | None = None


class _Leak(_Strict):
    model_config = ConfigDict(extra="forbid")
    task: str
    n: int
    exact: int
    masked: int


class _Checks(_Strict):
    leaks: list[_Leak] = []


class _Record(_Strict):
    """What `llmad.json` must hold, and what it may; anything else that is recorded is not read."""

    method: str
    options: dict[str, Any]
    sites: list[dict[str, Any]]
    base: _Base
    quantization: str | None = None
    plugin: _Plugin | None = None
    built_on: list[Annotated[str, Field(pattern=_NAME)]] = []
    backbone: str | None = None
    task: str | None = None
    prompt: dict[str, Any] | None = None
    prompt_fingerprint: str | None = None
    recipe: dict[str, Any] | None = None
    checks: _Checks | None = None


def read_about(folder: Path) -> dict[str, Any]:
    """What `llmad.json` says; empty where the directory is another tool's.

    Raises:
        ModelError: it is no adapter directory, is written by a newer llmad, or says what cannot be.
    """
    read_config(folder)
    path = folder / ABOUT
    if not os.path.lexists(path):
        return {}
    about = _read(path)
    if about.get("format") != FORMAT:
        raise ModelError(
            "other-format", f"{path}: format {about.get('format')!r}; this llmad reads {FORMAT}", "update llmad"
        )
    try:
        _Record.model_validate(about)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError("broken-adapter", f"{path}: {where!r}: {first['msg']}") from None
    return about


def read_config(folder: Path) -> dict[str, Any]:
    """What `adapter_config.json` says.

    Raises:
        ModelError: the folder has none, or one that is not to be read.
    """
    path = folder / CONFIG
    if not os.path.lexists(path):  # pathlib's raises where the name is too long
        raise ModelError("no-adapter", f"{folder} is no adapter directory: it has no {CONFIG}")
    return _read(path)


def built_on(folder: Path, name: str) -> Path:
    """The directory of an adapter that another one was trained on top of.

    Raises:
        ModelError: it is a link that leads out of the folder.
    """
    path = folder / BUILT_ON / name
    if not re.fullmatch(_NAME, name) or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError("link-outside", f"{path} leads out of {folder}", "copy it there")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        content = strict_json.parse(plain_file.read(path, _LARGEST))
    except ValueError as error:
        raise ModelError("broken-adapter", f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ModelError("broken-adapter", f"{path} is not a JSON object")
    return content
