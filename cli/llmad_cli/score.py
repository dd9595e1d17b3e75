"""`llmad score`: score answers that are in a file."""

from pathlib import Path
from typing import Annotated

import typer

from llmad_cli.console import inert, out, print_json, print_rows
from llmad_cli.evaluate import SCORE_COLUMNS, score_row


def score(
    file: Annotated[Path, typer.Argument(help="Rows with output_pred and answer.", metavar="FILE")],
    task: Annotated[str, typer.Option("--task", "-t", help="The task that they answer.")],
    protocol: Annotated[str, typer.Option("--protocol", help="strict, or paper.")] = "strict",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the JSON goes, as a file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Score answers that a model wrote earlier: no model is loaded."""
    from llmad import stored
    from llmad.files import write_json
    from llmad.registry import registry
    from llmad_cli.lists import warn_of_broken_plugins

    warn_of_broken_plugins()
    found = stored.score(file, registry().task(task), protocol).describe()
    if output:
        write_json(output, found)
    if as_json:
        print_json(found)
        return
    print_rows([score_row(found)], SCORE_COLUMNS)
    out.print(inert(f"answers of {file}, protocol {protocol}"), soft_wrap=True)
