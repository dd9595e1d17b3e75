"""torch and transformers: a command that needs them has them imported, and let go of, here, at the least cost."""

import atexit
import gc
import os
import sys
from importlib import import_module
from typing import NoReturn

_UNSAID = 120  # the code of a process whose last words nobody took, by Python's own convention
_LARGE = "transformers.modeling_utils"  # it imports torch, and nearly all that any model wants


def ready() -> None:
    """Import the large libraries, and switch off the bars that transformers draws for itself.

    Nothing of what they make is garbage. So none is looked for while they are imported, and none among it later or at
    the end of the process, which would walk through millions of objects each time: a third of a short command.
    """
    if _LARGE not in sys.modules:
        _import_without_collecting(_LARGE)
    import_module("transformers.utils.logging").disable_progress_bar()


def leave() -> NoReturn:
    """End a process that has done well, once all is done that was registered to be done at its end.

    What was imported is not taken apart object by object, since the system takes all memory back at once. Only for a
    command that reads and prints, and starts no thread.
    """
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        os._exit(_UNSAID)
    os._exit(0)


def _import_without_collecting(name: str) -> None:
    collecting = gc.isenabled()
    gc.disable()
    try:
        import_module(name)
    finally:
        if collecting:
            gc.enable()
    gc.freeze()
