"""Source: what the name of a backbone stands for. No torch here, so that a wrong name is told at once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmad import base_folder
from llmad.errors import UsageError, nearest
from llmad.registry import registry


def find(name: str) -> Path | Mapping[str, Any] | str:
    """A local folder, the config of a known shape, or a hub id (`owner/name`).

    Raises:
        UsageError: it is none of them.
        ModelError: an adapter lies in the folder.
    """
    backbones = registry().backbones()
    for backbone in backbones:
        if name in backbone.folders:
            return backbone.folders[name]
        if name in backbone.shapes:
            return backbone.shapes[name]
    path = Path(os.path.expanduser(name))  # noqa: PTH111  pathlib's raises where there is no such user
    if os.path.isdir(path):  # noqa: PTH112  pathlib's raises where the name is too long
        if not (path / "config.json").is_file():
            adapter = (path / base_folder.ADAPTER).is_file()
            hint = "it is an adapter: give the folder of its base" if adapter else ""
            raise UsageError("no-backbone", f"{name}: the folder has no config.json", hint)
        base_folder.check_plain(name, path)
        return path
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    known = [known for backbone in backbones for known in (*backbone.folders, *backbone.shapes)]
    raise UsageError(
        "unknown-backbone",
        f"there is no backbone {name!r}: no built-in name, no local folder, no hub id (owner/name)",
        nearest(name, known),
    )
