"""The files of a base: what would slip in code, pickles or another's adapter is refused before they are opened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmad.errors import ModelError

ADAPTER = "adapter_config.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check(name: str, folder: Path) -> None:
    """Refuse a folder whose weights are pickled, missing, or accompanied by an adapter.

    Raises:
        ModelError: transformers would attach an adapter that lies there, and say nothing; or there are no safetensors.
    """
    check_plain(name, folder)
    if any(folder.glob("*.safetensors")):
        return
    if pickled := next((path.name for end in _PICKLED for path in sorted(folder.glob(end))), None):
        reason = f"{name}: its weights are pickled ({pickled}), which can run code; they are never read"
        hint = "have them as *.safetensors: from the place where they come from, or written by those who trust them"
        raise ModelError("pickled-weights", reason, hint)
    raise ModelError("broken-backbone", f"{name}: the folder has no weights (*.safetensors)", "is the folder complete?")


def check_plain(name: str, folder: Path) -> None:
    """Refuse a base with an adapter in its folder: no two programs would agree on what the base is.

    Raises:
        ModelError: there is one.
    """
    if (folder / ADAPTER).exists() or (folder / ADAPTER).is_symlink():
        reason = f"{name}: an adapter lies in the folder of the base ({folder / ADAPTER})"
        hint = "give --backbone a folder without it; to use the adapter, move it to one of its own and llmad.load it"
        raise ModelError("stray-adapter", reason, hint)


def check_code(name: str, values: Mapping[str, Any], known: bool) -> None:
    """Refuse a config that needs or fetches code.

    Args:
        name: of the base, for the error.
        values: what `config.json` says.
        known: whether transformers has a class of its own for it; code that the config names is then passed over.

    Raises:
        ModelError: it is of a type that only code in the folder or on the hub knows, or names a kernel of the hub.
    """
    if values.get("auto_map") and not known:
        reason = f"{name}: config.json asks for code of its own (auto_map), which is never run"
        raise ModelError("needs-code", reason, "take a model of a type that transformers has itself")
    given = values.get("attn_implementation") or values.get("_attn_implementation") or ""
    for kernel in given.values() if isinstance(given, Mapping) else [given]:
        if not isinstance(kernel, str) or "/" in kernel:
            reason = f"{name}: config.json asks for attention by code from the hub ({kernel!r}), which is never fetched"
            raise ModelError("needs-code", reason, "remove attn_implementation from its config.json")
