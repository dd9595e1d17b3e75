"""Report: the loss curve and the model card, from what a run directory holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from llmad.files import replace, write_text
from llmad.markdown import code, plain
from llmad.score import Score


def plot_loss(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the loss over the steps: every logged value, and their running mean."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    steps = [entry["step"] for entry in metrics]
    losses = [entry["loss"] for entry in metrics]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(steps, losses, color="#9ecae1", linewidth=1, label="logged steps")
    axes.plot(steps, _running_mean(losses), color="#08519c", linewidth=2, label="running mean")
    axes.set(xlabel="step", ylabel="loss (nats a trained token)", ylim=(0, None))
    axes.legend(frameon=False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    replace(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))
    pyplot.close(figure)


def write_card(path: Path, recipe: dict[str, Any], facts: Sequence[tuple[str, str]], scores: dict[str, Score]) -> None:
    """Write the model card: what was trained on what, how, and what came out."""
    front = yaml.safe_dump({"library_name": "llmad", "base_model": recipe["backbone"]}, sort_keys=False, width=10_000)
    lines = ["---", *front.splitlines(), "---", ""]
    adapter, backbone, task = (code(recipe[key]) for key in ("adapter", "backbone", "task"))
    lines += [f"# {adapter} on {backbone}", ""]
    lines += [f"A {adapter} adapter for the task {task}, trained with llmad.", ""]
    lines += ["| what | value |", "|---|---|", *(f"| {plain(name)} | {plain(value)} |" for name, value in facts), ""]
    if scores:
        lines += [
            "| | task | rows | accuracy | 95 % interval | majority | no answer |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {plain(name)} | {plain(score.task)} | {score.n} | {score.accuracy:.1%} | {score.interval[0]:.1%} to "
            f"{score.interval[1]:.1%} | {score.majority:.1%} | {score.unparsed} |"
            for name, score in scores.items()
        ]
        lines += [""]
    lines += [
        "![loss](loss.png)",
        "",
        "The recipe is in `recipe.json`; `llmad evaluate` scores this directory.",
        "",
    ]
    write_text(path, "\n".join(lines))


def _running_mean(values: Sequence[float], weight: float = 0.8) -> list[float]:
    means: list[float] = []
    for value in values:
        means.append(value if not means else weight * means[-1] + (1 - weight) * value)
    return means
