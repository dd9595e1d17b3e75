"""`llmad evaluate`: score trained adapters on tasks."""

from pathlib import Path
from typing import Annotated

import typer

from llmad_cli.console import inert, out, print_json, print_rows


def evaluate(
    folders: Annotated[list[str], typer.Argument(help="Run directories or adapter directories.", metavar="DIR...")],
    backbone: Annotated[str | None, typer.Option("--backbone", "-b", help="The base, if not the recorded one.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Tasks, separated by commas.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="A file or folder of rows, or a place on the hub.")
    ] = None,
    mapping: Annotated[str | None, typer.Option("--columns", help="Such as instruction=question.")] = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", "-q", help="Such as nf4, or none; as the adapter was trained if not given."),
    ] = None,
    protocol: Annotated[str, typer.Option("--protocol", help="strict, or paper.")] = "strict",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many rows a task.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Where answers and scores go.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows generated at once.")] = 64,
    device_map: Annotated[str | None, typer.Option("--device-map", help="auto, or a device such as cuda:0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Score adapters; one JSON line an answer goes to the run directory, or to --output."""
    from llmad.columns import parse
    from llmad.errors import UsageError, nearest
    from llmad.quantizer import UNQUANTISED
    from llmad.recipe import placed
    from llmad.registry import parse_quantizer, registry
    from llmad.task import PROTOCOLS
    from llmad_cli.lists import warn_of_broken_plugins

    warn_of_broken_plugins()
    if protocol not in PROTOCOLS:
        raise UsageError("unknown-protocol", f"there is no protocol {protocol!r}", nearest(protocol, list(PROTOCOLS)))
    try:
        placed(device_map)
    except ValueError as error:
        raise UsageError("bad-value", f"--device-map: {error}") from None
    try:
        given = parse(mapping) if mapping is not None else None
    except ValueError as error:
        raise UsageError("bad-value", f"--columns: {error}") from None
    tasks = [name.strip() for name in (task or "").split(",") if name.strip()]
    for name in tasks:
        registry().task(name)
    if quantize not in (None, UNQUANTISED):
        parse_quantizer(quantize)

    from llmad.scoring import evaluate_adapters
    from llmad_cli.progress import ScoringView, quiet_libraries

    quiet_libraries()
    with ScoringView() as view:
        found = evaluate_adapters(
            [Path(folder) for folder in folders],
            view.observe,
            backbone=backbone,
            tasks=tasks,
            source=data,
            protocol=protocol,
            limit=limit,
            output=Path(output) if output else None,
            batch_size=batch_size,
            device_map=device_map,
            quantize=quantize,
            columns=given,
        )
    if as_json:
        print_json(found.describe())
        return
    columns = {"adapter": "adapter", "task": "task", "n": "rows", "correct": "right", "accuracy": "accuracy"}
    rows = [{**row, "accuracy": f"{row['accuracy']:.1%}"} for row in found.describe()["results"]]
    print_rows(rows, {**columns, "unparsed": "no answer", "seconds": "seconds"})
    quantised = f", quantised as {found.quantization}" if found.quantization else ""
    out.print(inert(f"backbone {found.backbone}{quantised}, protocol {found.protocol}"), soft_wrap=True)
