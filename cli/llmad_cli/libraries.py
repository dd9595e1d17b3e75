"""torch and transformers: a command that needs them has them imported here, at the least cost."""

import gc
import sys
from importlib import import_module

_LARGE = "transformers.modeling_utils"  # it imports torch, and nearly all that any model wants


def ready() -> None:
    """Import the large libraries, and switch off the bars that transformers draws for itself.

    Nothing of what they make is garbage. So none is looked for while they are imported, and none among it later or at
    the end of the process, which would walk through millions of objects each time: a third of a short command.
    """
    if _LARGE not in sys.modules:
        _import_without_collecting(_LARGE)
    import_module("transformers.utils.logging").disable_progress_bar()


def _import_without_collecting(name: str) -> None:
    collecting = gc.isenabled()
    gc.disable()
    try:
        import_module(name)
    finally:
        if collecting:
            gc.enable()
    gc.freeze()
