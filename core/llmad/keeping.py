"""Keeping: the steps that a run takes, with what is kept of them: metrics, checkpoints, and in the end the adapter."""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from llmad import checkpoint, frozen, placement, prompting, resuming, train
from llmad.adapter_copy import AdapterCopy, copied
from llmad.attachment import attached, parameters
from llmad.errors import LlmadWarning, ModelError
from llmad.files import sync
from llmad.folder import appearing
from llmad.ranks import ALONE, Ranks
from llmad.setup import Setup
from llmad.step import Step, Underway
from llmad.stopping import Stopped, watching
from llmad.writing import Writing


def train_together(
    runs: Sequence[Setup],
    observe: Callable[[Setup, Step], None],
    ranks: Ranks = ALONE,
) -> None:
    """Take the steps that are left of runs on one base, with their metrics and checkpoints, and save their adapters.

    Args:
        runs: set up on the same model, in directories that are open; a run alone is a list of one.
        observe: is told of every step of every run, in the main process.
        ranks: this process among those that train; the main one writes.

    Raises:
        Stopped: a signal came, to whichever process; the steps that all had come to are saved.
        LlmadError: of every kind.
    """
    model = runs[0].base.model
    for own in runs if ranks.main else ():
        own.run.rewind(own.done)
        checkpoint.prune(own.run.checkpoints, own.done, own.recipe.save_total_limit)  # a kill may have come before it
    before = frozen.sums(model)
    trainees = [
        train.Trainee(own.schedule, own.encoded.examples, own.adam, own.scaler, own.done, own.name) for own in runs
    ]
    with watching() as watch, Writing(_beside(model)) as writing:
        told = _Told(observe, ranks, writing)
        for turn, steps in enumerate(train.fit(model, trainees, runs[0].batching, runs[0].device, ranks)):
            going = [own for own in runs if own.done + turn < own.schedule.steps]
            asked = ranks.agree(watch.asked or 0)  # what comes later waits, so that every run has saved this step
            for own, step in zip(going, steps, strict=True):
                told.add(own, step, save=bool(asked) or _due(own, step.planned))
            if asked:
                writing.wait()
            _stop(asked, ranks)
        writing.wait()
        _stop(ranks.agree(watch.asked or 0), ranks)
    ranks.part()
    frozen.check(model, before)
    for own in runs:
        _check_reached(own)
        if ranks.main:
            made = _copied(own)
            with appearing(own.run.adapter) as folder:
                made.write(folder)
                made.check(folder)


def _beside(model: nn.Module) -> bool:
    """Whether saving takes nothing from the steps: a device makes them, and the host has time."""
    return placement.device(model).type != "cpu"


def _stop(asked: int, ranks: Ranks) -> None:
    """End as a signal asked: the main process first, which has things to write and says so."""
    if asked:
        stopped = Stopped(asked)
        if not ranks.main:
            ranks.wait_for_main()
            raise SystemExit(stopped.code)
        raise stopped


@dataclass
class _Told:
    """Steps on their way to the metrics and to whoever looks on, in order, each when the device is done with it."""

    observe: Callable[[Setup, Step], None]
    ranks: Ranks
    writing: Writing
    waiting: deque[tuple[Setup, Underway]] = field(default_factory=deque)

    def add(self, own: Setup, underway: Underway, save: bool) -> None:
        """Have one told too. To save it is to wait for it, since the next one moves what is saved."""
        self.waiting.append((own, underway))
        while self.waiting and (save or self.waiting[0][1].over):
            of, first = self.waiting.popleft()
            self._tell(of, first.done(), save and first is underway)

    def _tell(self, own: Setup, step: Step, save: bool) -> None:
        recipe = own.recipe
        if self.ranks.main and (step.step % recipe.logging_steps == 0 or step.step in (1, step.steps)):
            own.run.log(step.describe())
        if save:
            _save_checkpoint(own, step.step, self.ranks, self.writing)
        if self.ranks.main:
            self.observe(own, step)


def _due(own: Setup, step: Step) -> bool:
    """Whether a step is saved, whatever else may end here."""
    every = own.recipe.save_steps
    return step.step == step.steps or bool(every and step.step % every == 0)


def check_same(own: Setup, ranks: Ranks) -> None:
    """Refuse to go on where a process has another adapter than the others; see `Ranks.check_same`."""
    ranks.check_same([parameter for _, parameter in parameters(own.base.model, own.name)])


def _save_checkpoint(own: Setup, step: int, ranks: Ranks, writing: Writing) -> None:
    check_same(own, ranks)
    if not ranks.main:
        return
    made = checkpoint.taken(step, _copied(own), own.adam, own.scaler, own.identity, resuming.versions())

    def write() -> None:
        sync(own.run.metrics)  # no later than the steps that they tell of
        made.write(own.run.checkpoints, own.recipe.save_total_limit)

    writing.put(write)


def _check_reached(own: Setup) -> None:
    """Refuse a run in which a parameter never had a gradient; of experts, which see what is routed to them, only tell.

    The optimizer has a state of what it was given a gradient of.
    """
    mine = parameters(own.base.model, own.name)
    never = [name for name, parameter in mine if parameter not in own.adam.state]
    if not never:
        return
    reason = f"no step has given {never[0]} and {len(never) - 1} other parameters of the adapter a gradient"
    if any(site.stack for site in attached(own.base.model, own.name).modules):
        warnings.warn(f"{reason}: no text was routed there", LlmadWarning, stacklevel=2)
    else:
        raise ModelError("not-trained", reason, "place the adapter where the model's own forward comes by")


def _copied(own: Setup) -> AdapterCopy:
    return copied(own.base.model, own.name, _about(own), own.built_on)


def _about(own: Setup) -> dict[str, Any]:
    """What the adapter directory records beyond the adapter."""
    return {
        "backbone": own.recipe.backbone,
        "task": own.task.name,
        **prompting.record(own.prompt),
        "checks": own.checks.describe(),
        "recipe": own.recipe.model_dump(mode="json"),
    }
