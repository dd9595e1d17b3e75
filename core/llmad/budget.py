"""Budget: what memory a run will take at its peak, part by part.

The parts are counted, not guessed: weights and optimizer state by their shapes, the step by `usage` on the longest
batch of the schedule. The lower bound is what must be there when a forward pass is over. The upper bound adds what
cannot be counted: what an allocator rounds up and keeps, and the room that kernels take for themselves.
"""

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from torch import Tensor, nn

from llmad import memory, placement
from llmad.batching import Batching
from llmad.data import Example
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.usage import Usage, Way, usage

_ROWS = 200_000  # looked through for the longest batch
_ROOM = 2**26  # bytes that kernels and libraries may take once
_SLACK = {"measured": 0.2, "rehearsed": 0.2, "extrapolated": 0.4}  # share of a step that allocators may add
# On a CPU the count is right to a few percent, and kernels take little; but the C library keeps freed blocks of less
# than 32 MiB, in pieces that do not fit what comes next. benchmarks/memory_plan.py measured what that comes to.
_CPU_ROOM, _HEAP = 2**23, 2**28  # bytes that there may be beside it, and the most that it was found to be
_BESIDE_KEPT, _BESIDE_WORKING = 0.75, 3.5  # bytes of such pieces, for one that is kept and one that comes and goes
_GIVEN_BACK = "MALLOC_MMAP_THRESHOLD_"  # has glibc give blocks of so many bytes and more back at once


@dataclass(frozen=True)
class Part:
    """What one thing takes, in bytes, and what it is."""

    name: str
    bytes: int
    what: str


@dataclass(frozen=True)
class Budget:
    """Memory at a run's peak, from its second step on, in bytes.

    Attributes:
        parts: what it is made of.
        lower: what must be there.
        upper: what there may be.
        room: what the run may have: what is free, and what the loaded model has taken already; None where unknown.
        way: how the step is known, of `usage`.
        cure: what to do where it may not fit; empty where it fits.
    """

    parts: tuple[Part, ...]
    lower: int
    upper: int
    room: int | None
    way: Way
    cure: str = ""

    @property
    def predicted(self) -> int:
        """The sum of the parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether there is room even for the upper bound."""
        return self.room is None or self.upper <= self.room


def estimate(model: nn.Module, how: Batching, schedule: Schedule, examples: Sequence[Example]) -> Budget:
    """The budget of a run.

    Args:
        model: the model with its adapter attached.
        how: the rows stand in a forward pass.
        schedule: of the run.
        examples: its encoded rows.

    Raises:
        NotCountedError: the model fails where it is tried out.
        LlmadError: the step itself would.
    """
    recipe = schedule.recipe
    base, trained = _base(model), sum(own.nbytes for own in model.parameters() if own.requires_grad)
    step = usage(model, how, longest(how, schedule, examples))
    state = trained * (3 if recipe.gradient_accumulation_steps > 1 else 2)
    peak = max(step.peak, trained)
    parts = _parts(base, trained, state, replace(step, peak=peak), recipe)
    upper = base + trained + state + peak + _slack(model, replace(step, peak=peak))
    free = memory.free(model)
    return Budget(
        parts=parts,
        lower=base + trained + state + step.kept,
        upper=upper,
        room=None if free is None else free + base + trained - memory.mapped(model),
        way=step.way,
    )


def _slack(model: nn.Module, step: Usage) -> int:
    """What there may be beyond what is counted of a step."""
    share = round(step.peak * _SLACK[step.way])
    if placement.device(model).type != "cpu":
        return share + _ROOM
    if _GIVEN_BACK in os.environ:
        return share + _CPU_ROOM
    kept = min(step.kept, step.peak)
    pieces = round(_BESIDE_KEPT * kept + _BESIDE_WORKING * (step.peak - kept)) + _CPU_ROOM
    sure = step.way != "extrapolated" and platform.libc_ver()[0] == "glibc"
    return min(pieces, share + _HEAP) if sure else share + _HEAP


def longest(how: Batching, schedule: Schedule, examples: Sequence[Example]) -> list[Example]:
    """The rows of the forward pass that takes most, among those of the first 200,000 rows."""
    a_step = schedule.recipe.per_device_train_batch_size * schedule.recipe.gradient_accumulation_steps
    steps = islice(schedule.walk(0), -(-_ROWS // a_step))
    return max(
        ([examples[row] for row in batch] for _, batches in steps for batch in batches),
        key=lambda rows: _size(how, rows),
    )


def _size(how: Batching, rows: Sequence[Example]) -> tuple[int, int]:
    lengths = [len(row.ids) for row in rows]
    tokens = sum(lengths) if how.way else len(lengths) * max(lengths)
    return tokens, sum(row.learnt for row in rows)


def _parts(base: int, trained: int, state: int, step: Usage, recipe: Recipe) -> tuple[Part, ...]:
    again = ", of which each block is computed again for its gradients" if recipe.gradient_checkpointing else ""
    held = "AdamW's two means" + (", and gradients that add up" if recipe.gradient_accumulation_steps > 1 else "")
    head = min(step.head, step.peak - min(step.kept, step.peak))
    return (
        Part("weights", base, "the frozen base, and adapters below"),
        Part("adapter", trained, "what is trained"),
        Part("optimizer", state, held),
        Part("activations", min(step.kept, step.peak), f"kept by the longest forward pass for its gradients{again}"),
        Part("head", head, "the logits of a chunk of learnt tokens, and their loss"),
        Part("working", step.peak - min(step.kept, step.peak) - head, "what comes and goes, gradients among it"),
    )


def _base(model: nn.Module) -> int:
    """Bytes of all that the model has in memory and does not train, each storage once."""
    own = [*(one for one in model.parameters() if not one.requires_grad), *model.buffers()]
    return sum({place: size for one in own if not one.is_meta for place, size in [_storage(one)]}.values())


def _storage(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage._cdata, storage.nbytes()


def in_words(sizes: Iterable[int]) -> tuple[str, list[str]]:
    """A unit that suits the largest of some sizes, and each in it."""
    every = list(sizes)
    unit, name = (2**30, "GiB") if max(every) >= 2**30 else (2**20, "MiB")
    return name, [f"{size / unit:.1f}" for size in every]
