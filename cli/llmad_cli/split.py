"""`llmad split`: rows to train on and rows to test with. `llmad leaks`: test questions among the training rows."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llmad_cli.console import inert, out, print_json, print_rows

Folder = Annotated[str, typer.Option("--data", "-d", help="A folder of the sets' test files, in the paper's layout.")]
Tasks = Annotated[str | None, typer.Option("--task", "-t", help="Sets, separated by commas; all there if not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def split(
    folder: Annotated[str, typer.Argument(help="A folder of sets in the paper's layout: SVAMP/test.json and so on.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The folder to write; it must be free.")],
    task: Tasks = None,
    share: Annotated[float, typer.Option("--share", help="Of each set's rows, to train on.")] = 0.8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Fixes the choice.")] = 0,
    training: Annotated[
        str | None, typer.Option("--training", help="Rebuild the split that left this training file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Split sets by a seed, or rebuild the paper's own split from its training file."""
    from llmad import rows
    from llmad.errors import UsageError
    from llmad.leaks import leak, repeated
    from llmad.sets import sets_in, write_split
    from llmad.splitting import by_seed, by_training

    if not 0 < share < 1:
        raise UsageError("bad-value", f"--share {share:g} leaves one side without rows", "give a share such as 0.8")
    sets = sets_in(Path(folder), _names(task))
    about: dict[str, Any] = {"seed": seed, "share": share}
    if training is not None:
        trained = rows.read(Path(training), "train")
        halves, about = by_training(sets, trained), {"training": training, "rows": rows.fingerprint(trained)}
    else:
        halves = by_seed(sets, share, seed)
    write_split(halves, Path(output), about)
    trained = [row for train, _ in halves.values() for row in train]
    leaks = {name: leak(trained, name, test) for name, (_, test) in halves.items()}
    table: list[dict[str, Any]] = [
        {"set": name, "train": len(train), "test": len(test), "exact": leaks[name].exact, "masked": leaks[name].masked}
        for name, (train, test) in halves.items()
    ]
    table.append({"set": "all", **{key: sum(row[key] for row in table) for key in list(table[0])[1:]}})
    if as_json:
        print_json({**about, "output": output, "repeated": repeated(trained), "sets": table})
        return
    _print(table, {"set": "set", "train": "to train on", "test": "to test with"})
    out.print(inert(f"{repeated(trained):,} rows to train on ask what another one asks; written to {output}"))


def leaks(
    training: Annotated[str, typer.Argument(help="A file of training rows.")],
    folder: Folder,
    task: Tasks = None,
    as_json: Json = False,
) -> None:
    """Count the test questions that a training file holds, as they are and with their numbers masked."""
    from llmad import rows
    from llmad.leaks import leak, repeated
    from llmad.sets import sets_in

    trained = rows.read(Path(training), "train")
    found = [asdict(leak(trained, name, tests)) for name, tests in sets_in(Path(folder), _names(task)).items()]
    if as_json:
        print_json({"rows": len(trained), "repeated": repeated(trained), "leaks": found})
        return
    _print(found, {"task": "set", "n": "questions"})
    out.print(f"{len(trained):,} training rows; {repeated(trained):,} ask what another one asks")


def _print(table: list[dict[str, Any]], columns: dict[str, str]) -> None:
    print_rows(table, {**columns, "exact": "of these trained on", "masked": "numbers apart"})


def _names(task: str | None) -> list[str]:
    return [name.strip() for name in (task or "").split(",") if name.strip()]
