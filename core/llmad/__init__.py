"""Adapt frozen causal language models with small trained modules. This file is the whole public API.

Names are resolved when they are first used, so that `import llmad` is instant and loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmad.activation import activate, disabled, per_row
    from llmad.adapter_dir import load, save
    from llmad.attachment import attach, detach, parameters
    from llmad.averaging import average
    from llmad.backbone import Backbone, Fused, Stacked
    from llmad.errors import DataError, LlmadError, LlmadWarning, ModelError, UsageError
    from llmad.hookspecs import hookimpl
    from llmad.listing import list_adapters, list_backbones, list_quantizers, list_tasks
    from llmad.match import sites
    from llmad.merging import merge
    from llmad.module import AdapterModule
    from llmad.packed import packed_rows
    from llmad.preset import Preset
    from llmad.prompt import Prompt
    from llmad.quantizer import Quantizer
    from llmad.registry import parse_spec
    from llmad.selector import Sites
    from llmad.site import Rows, Site
    from llmad.spec import AdapterSpec
    from llmad.task import Hub, Judge, Released, Split, Task

_HOME = {
    "activation": ("activate", "disabled", "per_row"),
    "adapter_dir": ("load", "save"),
    "attachment": ("attach", "detach", "parameters"),
    "averaging": ("average",),
    "backbone": ("Backbone", "Fused", "Stacked"),
    "errors": ("DataError", "LlmadError", "LlmadWarning", "ModelError", "UsageError"),
    "hookspecs": ("hookimpl",),
    "listing": ("list_adapters", "list_backbones", "list_quantizers", "list_tasks"),
    "match": ("sites",),
    "merging": ("merge",),
    "module": ("AdapterModule",),
    "packed": ("packed_rows",),
    "preset": ("Preset",),
    "prompt": ("Prompt",),
    "quantizer": ("Quantizer",),
    "registry": ("parse_spec",),
    "selector": ("Sites",),
    "site": ("Rows", "Site"),
    "spec": ("AdapterSpec",),
    "task": ("Hub", "Judge", "Released", "Split", "Task"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: RUF022  the order in which a reader meets them
    "attach", "detach", "activate", "disabled", "per_row", "average", "merge", "save", "load", "sites", "parameters",
    "parse_spec", "list_adapters", "list_backbones", "list_quantizers", "list_tasks",
    "AdapterSpec", "AdapterModule", "Preset", "Site", "Rows", "Sites", "Backbone", "Fused", "Stacked", "Quantizer",
    "packed_rows", "Task", "Prompt", "Judge", "Released", "Hub", "Split", "hookimpl",
    "LlmadError", "UsageError", "DataError", "ModelError", "LlmadWarning",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'llmad' has no attribute {name!r}")
    return getattr(import_module(f"llmad.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
