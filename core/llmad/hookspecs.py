"""The hooks. A plugin is a module named by an entry point in the group `llmad.v1` that implements some of these.

Hooks return plain descriptors and do nothing else: they are called when the plugin is listed, so they must not
import torch. Nothing depends on the order in which plugins are called.
"""

import pluggy

from llmad.backbone import Backbone
from llmad.preset import Preset
from llmad.quantizer import Quantizer
from llmad.spec import AdapterSpec
from llmad.task import Task

GROUP = "llmad.v1"
PROJECT = "llmad"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def llmad_adapters() -> list[type[AdapterSpec] | Preset]:
    """The adapter methods that the plugin brings, as their spec classes, and the presets."""
    return []


@hookspec
def llmad_backbones() -> list[Backbone]:
    """The model families that the plugin describes."""
    return []


@hookspec
def llmad_quantizers() -> list[type[Quantizer]]:
    """The ways to keep a base's weights in few bits that the plugin brings, as their config classes."""
    return []


@hookspec
def llmad_tasks() -> list[Task]:
    """The tasks that the plugin brings."""
    return []
