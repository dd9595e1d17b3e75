"""`llmad train`: put a recipe together, train, and show what happens. `llmad recipes`: the built-in ones."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmad_cli.console import out, print_json

if TYPE_CHECKING:
    from llmad.recipe import Layer, Recipe


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file (.toml, .yaml, .json) or a built-in name.")
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", "-b", help="Built-in name, folder or hub id.")] = None,
    adapter: Annotated[str | None, typer.Option("--adapter", "-a", help="Such as lora[r=16,layers=8:].")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="A task of list-tasks.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="A file of rows, a folder, or hub:OWNER/NAME@COMMIT.")
    ] = None,
    columns: Annotated[str | None, typer.Option("--columns", help="Such as instruction=question,output=text.")] = None,
    quantize: Annotated[
        str | None, typer.Option("--quantize", "-q", help="Keep the base in few bits: a quantizer of list-quantizers.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="The run directory.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any recipe key, as key=value.")] = None,
    resume: Annotated[str | None, typer.Option("--resume", help="auto, or a run directory to go on with.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; train and write nothing.")] = False,
) -> None:
    """Train an adapter; without arguments, LoRA on the embedded backbone and generated word problems."""
    from llmad_cli.lists import warn_of_broken_plugins

    options = {"backbone": backbone, "adapter": adapter, "task": task, "data": data, "quantize": quantize}
    options |= {"output_dir": output, "columns": columns}
    given = {key: value for key, value in options.items() if value is not None}
    folder = _resumed(resume, output)
    warn_of_broken_plugins()
    loaded = _load(recipe, given, settings or [], folder)
    _check_output(loaded, folder)

    from llmad_cli.libraries import ready

    ready()
    from llmad.run import train_adapter
    from llmad_cli.progress import TrainingView

    with TrainingView(dry_run) as view:
        train_adapter(loaded, view.observe, folder, dry_run)


def recipes(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the built-in recipes."""
    from llmad.recipe import read

    found = [{"name": path.stem, **read(path)[1]} for path in _built_in()]
    if as_json:
        print_json(found)
        return
    for row in found:
        out.print(f"{row.pop('name')}: {', '.join(f'{key}={value}' for key, value in row.items())}")


def _built_in() -> list[Path]:
    return sorted(Path(str(files("llmad_cli") / "recipes")).glob("*.toml"))


def _resumed(resume: str | None, output: str | None) -> Path | None:
    """The run directory to go on with; `auto` means the output if there is a run in it."""
    from llmad.errors import UsageError

    if resume is None:
        return None
    if resume != "auto":
        if not (Path(resume) / "recipe.json").is_file():
            raise UsageError("no-run", f"--resume {resume}: there is no run")
        return Path(resume)
    if output is None:
        raise UsageError("no-output", "--resume auto needs --output, the run directory to look in")
    return Path(output) if (Path(output) / "recipe.json").is_file() else None


def _load(recipe: str | None, given: dict[str, Any], settings: list[str], folder: Path | None) -> "Recipe":
    """Defaults, then the recipe or the resumed run's, then the command line."""
    from llmad.recipe import load, read, read_pairs

    command = [("command line", given), read_pairs(settings, given)]
    named = ("no recipe", {}) if recipe is None else _named(recipe)
    if folder and recipe is None:
        return load([read(folder / "recipe.json"), *command])
    layers: list[Layer] = [named, *command]
    return load([defaults({key: value for _, layer in layers for key, value in layer.items()}), *layers])


def defaults(asked: dict[str, Any]) -> "Layer":
    """The built-in recipe to start from: the one for rows of one's own, where data or another task is asked for."""
    from llmad.recipe import read

    default, data = (read(next(path for path in _built_in() if path.stem == stem)) for stem in ("default", "data"))
    own_task = asked.get("task", default[1]["task"])
    return default if asked.get("data") is None and own_task == default[1]["task"] else data


def _named(recipe: str) -> "Layer":
    from llmad.errors import UsageError, nearest
    from llmad.recipe import read

    built_in = {path.stem: path for path in _built_in()}
    if recipe in built_in:
        return read(built_in[recipe])
    if Path(recipe).suffix:
        return read(Path(recipe))
    raise UsageError("no-recipe", f"there is no built-in recipe {recipe!r}", nearest(recipe, list(built_in)))


def _check_output(recipe: "Recipe", folder: Path | None) -> None:
    """Refuse a directory that is taken before torch is imported."""
    from llmad.run_dir import choose

    if folder is None and recipe.output_dir is not None:
        choose(recipe.output_dir, "")
