"""`llmad evaluate`: score trained adapters on tasks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmad_cli.console import inert, out, print_json, print_rows, warn

if TYPE_CHECKING:
    from llmad.scoring import Evaluation

SCORE_COLUMNS = {
    "task": "task",
    "n": "rows",
    "correct": "right",
    "accuracy": "accuracy",
    "interval": "95 % interval",
    "majority": "majority",
    "unparsed": "no answer",
}


def evaluate(
    folders: Annotated[list[str], typer.Argument(help="Run directories or adapter directories.", metavar="DIR...")],
    backbone: Annotated[str | None, typer.Option("--backbone", "-b", help="The base, if not the recorded one.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Tasks, separated by commas.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="A file or folder of rows, or a place on the hub.")
    ] = None,
    columns: Annotated[str | None, typer.Option("--columns", help="Such as instruction=question.")] = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", "-q", help="Such as nf4, or none; as the adapter was trained if not given."),
    ] = None,
    protocol: Annotated[str | None, typer.Option("--protocol", help="strict (if not given), or paper.")] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="task, verbatim, chat or paper; the trained one if not given.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many rows a task.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Where answers and scores go.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Rows generated at once; 64.")] = None,
    device_map: Annotated[str | None, typer.Option("--device-map", help="auto, or a device such as cuda:0.")] = None,
    no_base: Annotated[bool, typer.Option("--no-base", help="Leave the base's own row out.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any key of an exam, as key=value.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Score adapters and their base; one JSON line an answer goes to the run directory, or to --output.

    An evaluation that was stopped goes on when the same command is given again.
    """
    from llmad.exam import read
    from llmad.recipe import read_pairs
    from llmad_cli.lists import warn_of_broken_plugins

    warn_of_broken_plugins()
    options: dict[str, Any] = {
        "backbone": backbone,
        "task": task,
        "data": data,
        "quantize": quantize,
        "protocol": protocol,
    }
    options |= {"prompt": prompt, "limit": limit, "output": output, "batch_size": batch_size}
    options |= {"columns": columns, "device_map": device_map, "base": False if no_base else None}
    given = {key: value for key, value in options.items() if value is not None}
    exam = read({**given, **read_pairs(settings or [], given)[1]})

    from llmad_cli.libraries import ready

    ready()
    from llmad.scoring import evaluate_adapters
    from llmad_cli.progress import ScoringView

    with ScoringView() as view:
        found = evaluate_adapters([Path(folder) for folder in folders], exam, view.observe)
    if as_json:
        print_json(found.describe())
    else:
        _show(found)


def score_row(score: dict[str, Any]) -> dict[str, Any]:
    """A score as a row to print."""
    low, high = score["interval"]
    shares = {"accuracy": f"{score['accuracy']:.1%}", "interval": f"{low:.1%} to {high:.1%}"}
    return {**score, **shares, "majority": f"{score['majority']:.1%}"}


def _show(found: "Evaluation") -> None:
    results = found.describe()["results"]
    rows = [score_row(result) for result in sorted(results, key=lambda result: result["hashes"]["adapter"] is not None)]
    columns = {"seconds": "seconds", "tokens_per_second": "tokens/s"}
    print_rows(rows, {"adapter": "adapter", **SCORE_COLUMNS, **columns})
    for quirk in dict.fromkeys(quirk for result in results for quirk in result["quirks"]):
        warn(f"protocol paper: {quirk}")
    quantised = f", quantised as {found.quantization}" if found.quantization else ""
    out.print(inert(f"backbone {found.backbone}{quantised}, protocol {found.protocol}"), soft_wrap=True)
