"""`llmad compare`: train several adapters at the same time, and say which of them the questions tell apart."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmad_cli.console import inert, out, print_json, print_rows

if TYPE_CHECKING:
    from llmad.comparison import Comparison
    from llmad.recipe import Layer
    from llmad.study import Study


def compare(
    study: Annotated[
        str | None, typer.Argument(help="A study (.toml, .yaml, .json): a recipe with `adapters` and `seeds`.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="The folder of all runs.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any key of a study, as key=value.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many questions.")] = None,
    together: Annotated[
        int | None, typer.Option("--together", min=1, help="At most so many runs at once; all if not given.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; train and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train several adapters at once on one base, each as alone, and compare their answers to the same questions.

    Without a study: three methods on the embedded backbone. A comparison that was stopped goes on when the same command
    is given again with the same --output: runs that are done are kept, the others start anew.
    """
    from llmad_cli.lists import warn_of_broken_plugins

    warn_of_broken_plugins()
    given = {
        key: value for key, value in {"output_dir": output, "max_eval_samples": limit}.items() if value is not None
    }
    told = _load(study, given, settings or [])
    _check_output(told)

    from llmad_cli.libraries import ready

    ready()
    from llmad import compare as comparing
    from llmad_cli.progress import ComparingView

    with ComparingView(quiet=as_json) as view:
        found = comparing.compare(told, view.observe, together, dry_run)
    if as_json:
        print_json(found.describe() if found else view.planned.describe())
    elif found:
        _show(found, view.planned.place)


def _load(study: str | None, given: dict[str, Any], settings: list[str]) -> "Study":
    """Defaults, then the study, then the command line."""
    from llmad.recipe import read, read_pairs
    from llmad.study import load
    from llmad_cli.train import defaults

    path = Path(str(files("llmad_cli") / "studies" / "default.toml")) if study is None else Path(study)
    layers: list[Layer] = [read(path), ("command line", given), read_pairs(settings, given)]
    origin, values = defaults({key: value for _, layer in layers for key, value in layer.items()})
    common = {key: value for key, value in values.items() if key != "adapter"}
    return load([(origin, common), *layers])


def _check_output(study: "Study") -> None:
    """Refuse, before torch is imported, a folder that is taken or holds another study."""
    from llmad.study import begun

    if begun(place := study.place()):
        study.check_same(place)


def _show(found: "Comparison", place: Path) -> None:
    from llmad.comparison import COLUMNS

    print_rows(found.rows(), COLUMNS)
    for sentence in found.words():
        out.print(inert(sentence), soft_wrap=True)
    out.print(inert(f"differences are in points, to the best; p: {found.test}"), soft_wrap=True)
    out.print(inert(f"comparison: {place / 'comparison.md'}"), soft_wrap=True)
