"""`llmad list-adapters`, `list-backbones`, `list-quantizers`, `list-tasks`, `plugins`: what is installed."""

from typing import Annotated, Any

import typer

from llmad_cli.console import print_json, print_rows, warn

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def adapters(as_json: Json = False) -> None:
    """List the adapter methods."""
    from llmad import list_adapters

    columns = {"name": "name", "sites": "default sites", "distribution": "from", "version": "version"}
    _show(list_adapters(), {**columns, "status": "status", "summary": "summary"}, as_json)


def backbones(as_json: Json = False) -> None:
    """List the backbone families, with the sizes known by shape and the weights that are shipped."""
    from llmad import list_backbones

    columns = {"name": "name", "weights": "weights", "shapes": "shapes", "distribution": "from"}
    _show(list_backbones(), {**columns, "summary": "summary"}, as_json)


def quantizers(as_json: Json = False) -> None:
    """List the ways to quantise a base, with their options and defaults."""
    from llmad import list_quantizers

    columns = {"name": "name", "options": "options", "distribution": "from", "summary": "summary"}
    _show(list_quantizers(), columns, as_json)


def tasks(as_json: Json = False) -> None:
    """List the tasks."""
    from llmad import list_tasks

    _show(list_tasks(), {"name": "name", "distribution": "from", "summary": "summary"}, as_json)


def plugins(as_json: Json = False) -> None:
    """List every plugin that was found, the broken ones too."""
    from llmad.listing import list_plugins

    columns = {"name": "name", "distribution": "from", "version": "version", "api": "API", "offers": "offers"}
    rows = list_plugins()
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, {**columns, "status": "status", "error": "error"})


def warn_of_broken_plugins() -> None:
    """Say in one line each which plugins were left out because they are broken or of another generation."""
    from llmad.registry import registry

    for plugin in registry().plugins:
        if plugin.status in ("broken", "incompatible"):
            warn(f"plugin {plugin.name} of {plugin.distribution} {plugin.version} is {plugin.status}: {plugin.error}")


def _show(rows: list[dict[str, Any]], columns: dict[str, str], as_json: bool) -> None:
    warn_of_broken_plugins()
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, columns)
