"""Training: a short loop that yields after every optimizer step. It knows no logger and no file.

It never waits for the device that it keeps busy: what a step has come to is read when the next one is under way.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from llmad import placement
from llmad.activation import taking_turns
from llmad.batching import Batching
from llmad.data import Example
from llmad.dice import Dice
from llmad.late import Late
from llmad.launch import check_alone
from llmad.loss import token_losses
from llmad.ranks import ALONE, Ranks
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.step import Step, Underway


@dataclass(frozen=True)
class Trainee:
    """An adapter, and what trains it.

    Attributes:
        schedule: its steps.
        examples: its encoded rows.
        adam: the optimizer over its parameters.
        scaler: of `loss_scaler`.
        start: steps already done.
        name: the adapter's.
    """

    schedule: Schedule
    examples: Sequence[Example]
    adam: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    start: int = 0
    name: str = "default"

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [parameter for group in self.adam.param_groups for parameter in group["params"]]

    @property
    def called(self) -> str:
        """What an error says of it first."""
        return "" if self.name == "default" else f"adapter {self.name!r}, "


def accelerator() -> Accelerator:
    """The device of what runs in one process.

    Raises:
        UsageError: several were launched.
    """
    check_alone("this")
    return Accelerator()


def optimizer(parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over the adapter's parameters, fused where the device has it."""
    return torch.optim.AdamW(parameters.values(), lr=0.0, weight_decay=recipe.weight_decay, fused=True)


def loss_scaler(model: nn.Module) -> torch.amp.GradScaler:
    """Scales the loss so that the gradients of a float16 base do not vanish; does nothing for other dtypes."""
    where = placement.device(model).type
    half = any(parameter.dtype == torch.float16 for parameter in model.parameters())
    return torch.amp.GradScaler(where, enabled=half)


def fit(
    model: nn.Module,
    trainees: Sequence[Trainee],
    how: Batching,
    device: Accelerator,
    ranks: Ranks = ALONE,
) -> Iterator[list[Underway]]:
    """Train adapters, each as if it were alone; what happens in a step depends on its seed and its number only.

    One trainee is trained as the model stands. Of several each acts on its own rows alone, and those of all go through
    the base together; losses, random numbers, clipping and optimizers are kept apart. Of several processes
    each computes its share of a step's batches, and all take the same step.

    Args:
        model: the model with its adapters attached.
        trainees: what is trained.
        how: the rows of a batch stand in a forward pass.
        device: runs the backward pass; where the model lies is the model's affair.
        ranks: this process among those that take the step.

    Yields:
        After each optimizer step that of every trainee that still had one to do; the device may still be at it.

    Raises:
        DivergedError: a loss, a gradient or a parameter is not finite, found out one step later at the latest.
        RankError: another process is gone.
    """
    model.train()
    alone = len(trainees) == 1
    before: list[Underway] = []
    for steps in zip_longest(*(trainee.schedule.walk(trainee.start) for trainee in trainees)):
        began = time.perf_counter()
        turns = [_Turn(trainee, ranks, *step) for trainee, step in zip(trainees, steps, strict=True) if step]
        if alone:
            torch.manual_seed(turns[0].seed)
        dice = {} if alone else {turn.trainee.name: Dice(turn.seed) for turn in turns}
        for number in range(max(len(turn.share) for turn in turns)):
            taking_part = [turn for turn in turns if number < len(turn.share)]
            _learn(model, taking_part, number, how, device, dice)
        for one in before:  # the device has this step's passes to go on with
            one.done()
        before = [turn.finish(began) for turn in turns]
        yield before
    for one in before:
        one.done()


def _learn(
    model: nn.Module, turns: list["_Turn"], number: int, how: Batching, device: Accelerator, dice: Mapping[str, Dice]
) -> None:
    """One forward and backward pass, which adds to the gradients and losses of those who take part."""
    rows = [turn.rows(number) for turn in turns]
    batch = how.batch([row for own in rows for row in own]).to(placement.device(model))
    names = [turn.trainee.name for turn, own in zip(turns, rows, strict=True) for _ in own]
    with how.within(model, batch), taking_turns(model, names, dice) if dice else nullcontext():
        losses = token_losses(model, batch.inputs, batch.labels)
        learnt = [sum(row.learnt for row in own) for own in rows]
        shares = [own.sum() / turn.learnt for own, turn in zip(torch.split(losses, learnt), turns, strict=True)]
        scaled = [turn.trainee.scaler.scale(share) for share, turn in zip(shares, turns, strict=True)]
        device.backward(torch.stack(scaled).sum())
    for turn, share in zip(turns, shares, strict=True):
        turn.loss = turn.loss + share.detach()


@dataclass
class _Turn:
    """One optimizer step of one trainee: which rows each forward pass of all processes has, and the loss so far."""

    trainee: Trainee
    ranks: Ranks
    step: int
    batches: list[list[int]]
    loss: Tensor | float = 0.0

    @property
    def seed(self) -> int:
        """Of its dropout in this process; a resumed run draws the same."""
        return self.ranks.seed((self.trainee.schedule.recipe.seed * 1_000_003 + self.step) % (1 << 63))  # torch's most

    @property
    def share(self) -> Sequence[list[int]]:
        """The forward passes of this process; none where an epoch ends with fewer batches than processes."""
        return self.ranks.share(self.batches)

    @property
    def every(self) -> list[int]:
        """The rows of all forward passes of all processes."""
        return [row for batch in self.batches for row in batch]

    def rows(self, number: int) -> list[Example]:
        """Those of one forward pass."""
        return [self.trainee.examples[row] for row in self.share[number]]

    @cached_property
    def learnt(self) -> int:
        """Learnt tokens of all forward passes of all processes."""
        return sum(self.trainee.examples[row].learnt for row in self.every)

    def finish(self, began: float) -> Underway:
        """Clip the gradients and move the parameters; the device is not asked what came of it."""
        schedule, adam, scaler = self.trainee.schedule, self.trainee.adam, self.trainee.scaler
        parameters = self.trainee.parameters
        scale = scaler.scale(torch.ones((), device=parameters[0].device))  # made at its first use, before the next line
        loss = torch.as_tensor(self.ranks.sum(self.loss, parameters))
        scaler.unscale_(adam)
        norm = _clip(parameters, schedule.recipe.max_grad_norm)
        rate = schedule.learning_rate(self.step)
        for group in adam.param_groups:
            group["lr"] = rate
        _move(adam, scaler, torch.isfinite(loss.to(norm)) & torch.isfinite(norm))
        adam.zero_grad(set_to_none=True)
        planned = Step(
            step=self.step,
            steps=schedule.steps,
            epoch=self.step / schedule.steps_per_epoch,
            loss=math.nan,
            learning_rate=rate,
            grad_norm=None,
            tokens=sum(len(self.trainee.examples[row].ids) for row in self.every),
            trained_tokens=self.learnt,
            seconds=time.perf_counter() - began,
        )
        left = nn.utils.get_total_norm([parameter.detach() for parameter in parameters])
        return Underway(planned, self.every, self.trainee.called, scaler.is_enabled(), Late([norm, loss, left, scale]))


def _clip(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    return nn.utils.clip_grad_norm_(parameters, limit or math.inf)


def _move(adam: torch.optim.Optimizer, scaler: torch.amp.GradScaler, finite: Tensor) -> None:
    """Move the parameters, unless something is not finite: a fused optimizer finds that out where the numbers are."""
    if scaler.is_enabled():  # and says so by itself
        scaler.step(adam)
        scaler.update()
        return
    adam.found_inf = 1 - finite.float()  # type: ignore[attr-defined]  # where a scaler would leave it
    adam.step()
    del adam.found_inf  # type: ignore[attr-defined]
