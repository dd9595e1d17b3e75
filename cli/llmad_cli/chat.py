"""`llmad chat`: ask a trained adapter, a line a question."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmad_cli.console import complain, inert, out, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[..., str]


def chat(
    folder: Annotated[str, typer.Argument(help="A run directory or an adapter directory.", metavar="DIR")],
    backbone: Annotated[str | None, typer.Option("--backbone", "-b", help="The base, if not the recorded one.")] = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", "-q", help="Such as nf4, or none; as the adapter was trained if not given."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Tokens of an answer.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2, help="Of sampling; 0: none.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling.")] = 0,
    device_map: Annotated[str | None, typer.Option("--device-map", help="auto, or a device such as cuda:0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object an answer.")] = False,
) -> None:
    """Ask a trained adapter as it was trained to be asked: a line a question, until Ctrl-D.

    Where the questions come from a file or a pipe, each has one line of answer; --json keeps its line breaks.
    """
    from llmad.errors import UsageError
    from llmad.quantizer import UNQUANTISED
    from llmad.recipe import placed
    from llmad.registry import parse_quantizer
    from llmad_cli.lists import warn_of_broken_plugins

    warn_of_broken_plugins()
    if quantize not in (None, UNQUANTISED):
        parse_quantizer(quantize)
    try:
        placed(device_map)
    except ValueError as error:
        raise UsageError("bad-value", f"--device-map: {error}") from None

    from llmad_cli.libraries import ready

    ready()
    from llmad.chat import chat as opened

    found = opened(Path(folder), backbone, quantize, device_map, seed)

    def ask(question: str, **more: object) -> str:
        return found.answer(question, max_new_tokens=max_new_tokens, temperature=temperature, **more)  # type: ignore[arg-type]

    if sys.stdin.isatty() and out.is_terminal and not as_json:
        _converse(ask, found.remembers)
    else:
        _answer_lines(ask, as_json)


def _answer_lines(ask: "Ask", as_json: bool) -> None:
    """One line of answer to each line; an empty one to an empty one."""
    for question in _lines():
        answer = ask(question) if question else ""
        found = json.dumps({"question": question, "answer": answer}, ensure_ascii=False)
        say(found if as_json else inert(" ".join(answer.split())))


def _lines() -> "Iterator[str]":
    from llmad.errors import DataError

    try:
        for line in sys.stdin:
            yield line.strip()
    except UnicodeDecodeError as error:
        raise DataError("bad-data", f"the questions cannot be read: {error}") from None


def _converse(ask: "Ask", remembers: bool) -> None:
    """A question at a time, its answer as it is written; Ctrl-C ends an answer, Ctrl-D the conversation."""
    from llmad.errors import DataError

    with suppress(ImportError):
        import readline  # noqa: F401  lets a question be edited and repeated

    before: list[tuple[str, str]] = []
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            print()
            return
        if not question:
            continue
        try:
            answer = ask(question, before=before, say=_say)
        except KeyboardInterrupt:
            print()
            continue
        except DataError as error:
            complain(str(error), "earlier turns are forgotten" if before else error.hint, error.code)
            before.clear()
            continue
        print()
        if remembers:
            before.append((question, answer))


def _say(piece: str) -> None:
    print(inert(piece), end="", flush=True)
