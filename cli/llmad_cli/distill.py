"""`llmad distill`: rationales of a teacher, as a file to train on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from llmad_cli.bars import Bars
from llmad_cli.console import err, inert, out, print_json

if TYPE_CHECKING:
    from llmad.distill import Answered


def distill(
    teacher: Annotated[
        str, typer.Option("--teacher", help="A built-in name, a folder, a hub id, or https://host/v1 of an endpoint.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write: .json, or .jsonl.")],
    task: Annotated[str, typer.Option("--task", "-t", help="The task; math fits any file of its layout.")] = "math",
    data: Annotated[str | None, typer.Option("--data", "-d", help="A file of rows, or a folder of task files.")] = None,
    split: Annotated[
        Literal["train", "test"], typer.Option("--split", help="Of a folder, or of generated rows.")
    ] = "train",
    model: Annotated[str | None, typer.Option("--model", "-m", help="Which model of the endpoint.")] = None,
    keep_wrong: Annotated[
        bool, typer.Option("--keep-wrong", help="Keep rationales with a wrong answer or none, as the paper did.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many rows.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Tokens of a rationale.")] = 512,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows in a batch, or in flight.")] = 8,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2, help="Of sampling; 0: none.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling.")] = 0,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds an endpoint may take a reply.")] = 300.0,
    quantize: Annotated[str | None, typer.Option("--quantize", "-q", help="Of a local teacher, such as nf4.")] = None,
    device_map: Annotated[str | None, typer.Option("--device-map", help="Of a local teacher: auto, or cuda:0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Ask a teacher every row, step by step, and keep the rationales that come to the right answer.

    An endpoint's key is the environment variable OPENAI_API_KEY. A run that was stopped goes on with the same command.
    """
    from llmad import distill as distilling
    from llmad.errors import UsageError
    from llmad.recipe import placed
    from llmad.registry import parse_quantizer, registry
    from llmad.teacher import Teacher, hire
    from llmad_cli.lists import warn_of_broken_plugins

    warn_of_broken_plugins()
    about = registry().task(task)
    if quantize is not None:
        parse_quantizer(quantize)
    try:
        placed(device_map)
    except ValueError as error:
        raise UsageError("bad-value", f"--device-map: {error}") from None

    def hired() -> Teacher:
        if "://" not in teacher:
            from llmad_cli.libraries import ready

            ready()
        return hire(teacher, model, batch_size, temperature, seed, timeout, quantize, device_map)

    with DistillingView() as view:
        rows = distilling.questions(about, split, data, limit)
        found = distilling.distill(about, rows, Path(output), hired, view.observe, keep_wrong, max_new_tokens)
    if as_json:
        print_json(found.describe())
        return
    earlier = f", {found.resumed:,} of them in an earlier run" if found.resumed else ""
    facts = {"asked": f"{found.rows:,} rows of {found.task}{earlier}", "teacher": found.teacher}
    facts |= {verdict: f"{count:,}" for verdict, count in found.verdicts.items()}
    for name, value in {**facts, "kept": f"{found.kept:,} in {found.output}"}.items():
        out.print(inert(f"{name:<9}  {value}"), soft_wrap=True)


class DistillingView(Bars):
    """A bar with the share of right answers on a terminal, a dozen lines elsewhere; on the error stream."""

    def __init__(self) -> None:
        note = TextColumn("{task.fields[note]}", markup=False)
        super().__init__(err, TextColumn("distill"), BarColumn(), MofNCompleteColumn(), note)
        self.bar: Any = None
        self.right = 0

    def observe(self, event: "Answered") -> None:
        """Show one event."""
        self.right += event.verdict == "right"
        note = f"{self.right / event.done:.1%} right"
        if self.bar is None:
            self.bar = self.progress.add_task("distill", total=event.rows, note=note)
        self.progress.update(self.bar, completed=event.done, note=note)
        if not err.is_terminal and (event.done == event.rows or event.done % max(1, event.rows // 10) == 0):
            err.print(f"row {event.done:,}/{event.rows:,}  {note}", soft_wrap=True)
