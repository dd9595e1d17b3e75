"""Schedule: which rows each optimizer step has, and its learning rate."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llmad.data import batches
from llmad.recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """Which batches each optimizer step has, and its learning rate: pure functions of the recipe and the step.

    Attributes:
        recipe: the recipe.
        lengths: of the rows, in tokens.
        peak: the learning rate after the warm-up.
        processes: that share each step.
    """

    recipe: Recipe
    lengths: tuple[int, ...]
    peak: float
    processes: int = 1

    @property
    def batches_a_step(self) -> int:
        """Forward passes of one optimizer step, of all processes together."""
        return self.recipe.gradient_accumulation_steps * self.processes

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the rows."""
        rows = self.recipe.per_device_train_batch_size * self.batches_a_step
        return math.ceil(len(self.lengths) / rows)

    @property
    def steps(self) -> int:
        """All optimizer steps."""
        return self.recipe.max_steps or max(1, round(self.recipe.num_train_epochs * self.steps_per_epoch))

    def walk(self, start: int) -> Iterator[tuple[int, list[list[int]]]]:
        """The steps after `start`, each with its batches as row numbers; how it is cut changes no step's rows."""
        size = self.recipe.per_device_train_batch_size
        for epoch in range(start // self.steps_per_epoch, math.ceil(self.steps / self.steps_per_epoch)):
            order = batches(
                self.lengths, size * self.batches_a_step, self.recipe.seed, epoch
            )  # however a step's rows are cut
            for place in range(self.steps_per_epoch):
                step = epoch * self.steps_per_epoch + place + 1
                if start < step <= self.steps:
                    rows = order[place]
                    yield step, [rows[cut : cut + size] for cut in range(0, len(rows), size)]

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then the recipe's schedule down to zero."""
        warm = math.ceil(self.recipe.warmup_ratio * self.steps)
        if step <= warm:
            return self.peak * step / warm
        left = 1 - (step - 1 - warm) / max(1, self.steps - warm)
        shape = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
        return self.peak * shape[self.recipe.lr_scheduler_type]
