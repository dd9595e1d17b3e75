"""`llmad merge`: fold trained adapters into their base and write a model that needs no llmad."""

from pathlib import Path
from typing import Annotated

import typer

from llmad_cli.console import inert, out, print_json


def merge(
    folders: Annotated[list[str], typer.Argument(help="Run or adapter directories.", metavar="DIR...")],
    output: Annotated[str, typer.Option("--output", "-o", help="The folder of the merged model.")],
    backbone: Annotated[str | None, typer.Option("--backbone", "-b", help="The base, if not the recorded one.")] = None,
    weights: Annotated[str | None, typer.Option("--weights", "-w", help="Of several adapters: 0.7,0.3.")] = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", "-q", help="Of the base: such as nf4, or none; as recorded if not given."),
    ] = None,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Merge into plain weights made of the quantised base's.")
    ] = False,
    any_prompt: Annotated[
        bool, typer.Option("--any-prompt", help="Average adapters that were trained with different prompts, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Fold an adapter, or the average of several, into the base; compare the logits before and after."""
    from llmad.errors import UsageError
    from llmad.quantizer import UNQUANTISED
    from llmad.registry import parse_quantizer
    from llmad_cli.lists import warn_of_broken_plugins

    warn_of_broken_plugins()
    if quantize not in (None, UNQUANTISED):
        parse_quantizer(quantize)
    try:
        shares = [float(weight) for weight in (weights or "").split(",") if weight.strip()]
    except ValueError:
        raise UsageError("bad-weights", f"--weights {weights!r} are no numbers", "write 0.7,0.3") from None

    from llmad_cli.libraries import ready

    ready()
    from llmad.merged import merge_adapters

    adapters = [Path(folder) for folder in folders]
    found = merge_adapters(adapters, Path(output), backbone, shares, quantize, dequantize, any_prompt)
    if as_json:
        print_json(found.describe())
        return
    out.print(inert(f"merged     {' and '.join(found.adapters)} into {found.backbone}, {found.dtype}"), soft_wrap=True)
    if found.quantization:
        out.print(inert(f"base       dequantised from {found.quantization}"), soft_wrap=True)
    out.print(f"effect     {found.effect:.3g}: the adapter's largest change of a logit", soft_wrap=True)
    unmerged = "those of the quantised base with the adapter" if found.quantization else "unmerged logits"
    out.print(f"difference {found.difference:.3g} at most between merged and {unmerged}", soft_wrap=True)
    out.print(f"choice     the same likeliest token at {found.same_choice:.2%} of the positions", soft_wrap=True)
    out.print(inert(f"written    {found.output}"), soft_wrap=True)
