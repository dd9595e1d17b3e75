"""The `llmad` command: its subcommands, and the one place where errors become a line and an exit code."""

import errno
import os
import signal
import sys
import warnings
from functools import partial
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer

from llmad.errors import LlmadError, LlmadWarning, OutOfMemoryError, StorageError
from llmad.launch import check_alone, expected, give_way, is_main, speaks
from llmad.stopping import Stopped, stoppable
from llmad_cli import chat, compare, distill, evaluate, inspect, lists, merge, score, split, train
from llmad_cli.console import complain, inert, warn

# Libraries that talk on their own account are kept quiet; what matters is said by llmad.
_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "USE_HUB_KERNELS": "NO",  # code that transformers would fetch where the package `kernels` is installed
}

app = typer.Typer(
    name="llmad",
    help="Adapt frozen language models with small trained modules.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("score")(score.score)
app.command("chat")(chat.chat)
app.command("distill")(distill.distill)
app.command("merge")(merge.merge)
app.command("split")(split.split)
app.command("leaks")(split.leaks)
app.command("inspect")(inspect.inspect)
app.command("list-adapters")(lists.adapters)
app.command("list-backbones")(lists.backbones)
app.command("list-quantizers")(lists.quantizers)
app.command("list-tasks")(lists.tasks)
app.command("plugins")(lists.plugins)
app.command("recipes")(train.recipes)


_INTERRUPTED = 130  # what Typer makes of a KeyboardInterrupt
_GO_ON = "llmad train goes on with --resume DIR, evaluate, distill and compare when they are given again"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"llmad {version('llmad')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001
) -> None:
    """Adapt frozen language models with small trained modules."""
    if context.invoked_subcommand != "train":
        check_alone(f"llmad {context.invoked_subcommand}")


def main() -> None:
    """Run the command line; exit with the documented code."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if expected() > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # where a process is gone the others say so, in a line
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # show what its encoding lacks as an escape, and go on
            stream.reconfigure(errors="backslashreplace")
    with stoppable(), warnings.catch_warnings():
        warnings.simplefilter("always", LlmadWarning)
        warnings.showwarning = partial(_show, warnings.showwarning)
        _run()


def _show(others: Any, message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """A warning of llmad's is said like its errors; another library's is shown as Python would, and as inert.

    Of several processes the main one says them.
    """
    if not is_main():
        return
    warn(str(message)) if issubclass(category, LlmadWarning) else others(inert(message), category, *place, **more)


def _end(error: LlmadError) -> NoReturn:
    _complain(str(error), error.hint, error.code)
    sys.exit(error.exit_code)


def _complain(message: str, hint: str, code: str) -> None:
    """Say an error; what all of several processes would say, the first one says."""
    if speaks():
        complain(message, hint, code)
    else:
        give_way()


def _run() -> None:
    debug = "--debug" in sys.argv[1:]
    words = [word for word in sys.argv[1:] if word != "--debug"]  # it may stand anywhere
    try:
        code = app(words or ["--help"], standalone_mode=False) or 0
        if code == _INTERRUPTED:
            _complain("stopped by SIGINT", _GO_ON, "stopped")
        sys.exit(code)
    except Stopped as stop:
        if stop.number != signal.SIGPIPE:  # whoever has stopped reading knows it
            _complain(str(stop), _GO_ON, "stopped")
        raise
    except LlmadError as error:
        if debug:
            raise
        _end(error)
    except MemoryError as error:
        if debug:
            raise
        said = " ".join(str(error).split()) or "there is not enough memory"
        _end(OutOfMemoryError("out-of-memory", said, "give it more (ulimit -v, a container's limit), or less to do"))
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) and not error.filename:
            _end(StorageError("cannot-write", f"the output stream: {error.strerror}", "free space where it goes"))
        code = getattr(error, "exit_code", None)  # the command line's own complaints bring theirs
        if code is None:
            _complain(
                " ".join(f"{type(error).__name__}: {error}".split()),
                "this is a fault of llmad; --debug shows where",
                "internal",
            )
            sys.exit(1)
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        _complain(message, "llmad --help lists commands, llmad COMMAND --help options", "usage")
        sys.exit(code)
