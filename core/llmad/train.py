"""Training: a short loop that yields a Step after every optimizer step. It knows no logger and no file."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from llmad import placement
from llmad.batching import Batching
from llmad.data import Batch, Example, batches
from llmad.errors import DivergedError, UsageError
from llmad.loss import answer_loss
from llmad.recipe import Recipe


@dataclass(frozen=True)
class Step:
    """What one optimizer step did.

    Attributes:
        step: number, counted from 1.
        steps: how many there will be.
        epoch: passes over the rows so far.
        loss: mean over the step's trained tokens, in nats.
        learning_rate: used in this step.
        grad_norm: of the adapter's gradients, before clipping; None where a float16 base overflowed and the step was
            skipped, after which its gradients are scaled down.
        tokens: real tokens of the step, padding left out.
        trained_tokens: of these, the learnt ones.
        seconds: wall time of the step.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float | None
    tokens: int
    trained_tokens: int
    seconds: float

    def describe(self) -> dict[str, Any]:
        """The step as plain data, for a log."""
        return asdict(self)


@dataclass(frozen=True)
class Schedule:
    """Which batches each optimizer step has, and its learning rate: pure functions of the recipe and the step."""

    recipe: Recipe
    lengths: tuple[int, ...]
    peak: float

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the rows."""
        rows = self.recipe.per_device_train_batch_size * self.recipe.gradient_accumulation_steps
        return math.ceil(len(self.lengths) / rows)

    @property
    def steps(self) -> int:
        """All optimizer steps."""
        return self.recipe.max_steps or max(1, round(self.recipe.num_train_epochs * self.steps_per_epoch))

    def walk(self, start: int) -> Iterator[tuple[int, list[list[int]]]]:
        """The steps after `start`, each with its batches as row numbers."""
        chunk = self.recipe.gradient_accumulation_steps
        for epoch in range(start // self.steps_per_epoch, math.ceil(self.steps / self.steps_per_epoch)):
            order = batches(self.lengths, self.recipe.per_device_train_batch_size, self.recipe.seed, epoch)
            for place in range(self.steps_per_epoch):
                step = epoch * self.steps_per_epoch + place + 1
                if start < step <= self.steps:
                    yield step, order[place * chunk : (place + 1) * chunk]

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then the recipe's schedule down to zero."""
        warm = math.ceil(self.recipe.warmup_ratio * self.steps)
        if step <= warm:
            return self.peak * step / warm
        left = 1 - (step - 1 - warm) / max(1, self.steps - warm)
        shape = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
        return self.peak * shape[self.recipe.lr_scheduler_type]


def accelerator() -> Accelerator:
    """The device to train on.

    Raises:
        UsageError: several processes were launched; a run trains in one.
    """
    found = Accelerator()
    if found.num_processes > 1:
        raise UsageError(
            "one-process",
            f"{found.num_processes} processes were launched; a run trains in one",
            "start llmad without a launcher",
        )
    return found


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
    adam: torch.optim.Optimizer,
    schedule: Schedule,
    examples: Sequence[Example],
    how: Batching,
    device: Accelerator,
    scaler: torch.amp.GradScaler,
    start: int = 0,
) -> Iterator[Step]:
    """Train the optimizer's parameters; what happens in a step depends on the seed and the step's number alone.

    Args:
        model: the model with its adapter attached.
        adam: the optimizer over the adapter's parameters.
        schedule: the steps.
        examples: the encoded rows.
        how: the rows of a batch stand in a forward pass.
        device: runs the backward pass; where the model lies is the model's affair.
        scaler: of `loss_scaler`.
        start: steps already done.

    Yields:
        One Step after each optimizer step.

    Raises:
        DivergedError: the loss, the gradient or a parameter is not finite.
    """
    model.train()
    where = placement.device(model)
    parameters = [parameter for group in adam.param_groups for parameter in group["params"]]
    for step, row_numbers in schedule.walk(start):
        began = time.perf_counter()
        torch.manual_seed(schedule.recipe.seed * 1_000_003 + step)  # dropout; a resumed run draws the same
        parts = [how.batch([examples[row] for row in rows]) for rows in row_numbers]
        trained = sum(part.trained for part in parts)
        loss = 0.0
        for part in parts:
            with how.within(model, part):
                loss += _backward(model, part.to(where), trained, device, scaler)
        scaler.unscale_(adam)
        norm = _clip(parameters, schedule.recipe.max_grad_norm)
        skipped = scaler.is_enabled() and math.isfinite(loss) and not math.isfinite(norm) and scaler.get_scale() > 1
        if not skipped:
            _check_finite(step, loss, norm, row_numbers)
        for group in adam.param_groups:
            group["lr"] = schedule.learning_rate(step)
        scaler.step(adam)
        scaler.update()
        _check_parameters(step, parameters, row_numbers)
        adam.zero_grad(set_to_none=True)
        tokens = sum(sum(part.lengths) for part in parts)
        epoch = step / schedule.steps_per_epoch
        rate, seconds = schedule.learning_rate(step), time.perf_counter() - began
        shown = None if skipped else norm
        yield Step(step, schedule.steps, epoch, loss, rate, shown, tokens, trained, seconds)


def _backward(model: nn.Module, part: Batch, trained: int, device: Accelerator, scaler: torch.amp.GradScaler) -> float:
    """Add one batch's gradients; its share of the step's mean loss over `trained` tokens."""
    share = answer_loss(model, part.inputs, part.labels) / trained
    device.backward(scaler.scale(share))
    return float(share.detach())


def _check_finite(step: int, loss: float, norm: float, row_numbers: Sequence[Sequence[int]]) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        reason = f"{_where(step, row_numbers)}: loss {loss}, gradient norm {norm}"
        raise DivergedError("diverged", reason, "lower learning_rate")


def _check_parameters(step: int, parameters: Sequence[Tensor], row_numbers: Sequence[Sequence[int]]) -> None:
    norms = torch._foreach_norm([parameter.detach() for parameter in parameters])
    total = torch.stack([norm.float() for norm in norms]).sum()
    if not math.isfinite(float(total)):
        raise DivergedError(
            "diverged", f"{_where(step, row_numbers)}: a parameter is not finite", "lower learning_rate"
        )


def _where(step: int, row_numbers: Sequence[Sequence[int]]) -> str:
    numbers = sorted(row for rows in row_numbers for row in rows)
    return f"step {step}, rows {numbers[:8]}{'...' if len(numbers) > 8 else ''}"


def _clip(parameters: Sequence[nn.Parameter], limit: float) -> float:
    return float(torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf))
