"""Budget: what memory a run will take at its peak, part by part.

The parts are counted, not guessed: weights and optimizer state by their shapes, the step by `usage` on the longest
batch of the schedule. The lower bound is what must be there when a forward pass is over. The upper bound adds what
cannot be counted: what an allocator rounds up and keeps, and the room that kernels take for themselves.
"""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import prod

import torch
from torch import Tensor, nn

from llmad import memory, placement
from llmad.batching import Batching
from llmad.data import Example
from llmad.quantization import owners
from llmad.recipe import Recipe
from llmad.schedule import Schedule
from llmad.usage import Usage, Way, usage

_ROWS = 200_000  # looked through for the longest batch
_ROOM = 2**26  # bytes that kernels and libraries may take once
_SLACK = {"measured": 0.2, "rehearsed": 0.2, "extrapolated": 0.4}  # share of a step that allocators may add
# On a CPU the count is right to a few percent, and kernels take little. But glibc keeps small blocks that are freed:
# a block fits only where nothing was put since, so one that comes and goes often finds its old places taken and gets a
# new one. What comes of that differs from run to run; these are above all that benchmarks/memory_plan.py measured.
_CPU_ROOM, _HEAP = 2**23, 2**28  # bytes that there may be beside it, and the same where the C library is not known
_CPU_SLACK = {"measured": 0.05, "rehearsed": 0.05, "extrapolated": 0.2}  # share of a step that was not counted
_BESIDE_KEPT, _BESIDE_WORKING = 0.75, 3.5  # bytes of such places, for one that is kept and one that comes and goes
_SAVING = 5  # times the adapter, between two steps: it and AdamW's two means copied, and what is read back of these
_BESIDE_DEQUANTISED = 8.0, 0.5  # the latter where a weight comes and goes at each map; and of all these together


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
    between = _SAVING * trained if placement.device(model).type == "cpu" else trained
    step = replace(step, peak=max(step.peak, between))
    parts = _parts(base, trained, state, step, recipe)
    free = memory.free(model)
    return Budget(
        parts=parts,
        lower=base + trained + state + step.kept,
        upper=sum(part.bytes for part in parts) + _slack(model, step),
        room=None if free is None else free + base + trained - memory.mapped(model),
        way=step.way,
    )


def _slack(model: nn.Module, step: Usage) -> int:
    """What there may be beyond what is counted of a step."""
    share = round(step.peak * _SLACK[step.way])
    if placement.device(model).type != "cpu":
        return share + _ROOM
    if platform.libc_ver()[0] != "glibc":
        return share + _HEAP
    weights = _dequantised(model)
    often, all_of_them = _BESIDE_DEQUANTISED if weights else (_BESIDE_WORKING, 0.0)
    places = _BESIDE_KEPT * step.small_kept + often * (step.small_peak - step.small_kept) + all_of_them * weights
    return round(places + step.peak * _CPU_SLACK[step.way]) + _CPU_ROOM


def _dequantised(model: nn.Module) -> int:
    """Bytes in small blocks of all quantised weights, each as it comes and goes once in a forward pass."""
    item = getattr(model, "dtype", torch.float32).itemsize
    sizes = [item * prod(own.shape(model.get_submodule(path))) for path, own in owners(model).items()]
    return sum(size for size in sizes if size < memory.given_back())


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
