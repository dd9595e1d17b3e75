"""Comparing: several adapters trained at the same time on one base, then asked the same questions.

OUTPUT/study.json              what is compared             OUTPUT/comparison.json   the table, for machines
OUTPUT/NAME-seedN/             a run directory, as of       OUTPUT/comparison.md     the same to read
                               `llmad train`, for each run
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmad import placement, resuming, rows, run_dir
from llmad.asking import Result, Scoring
from llmad.attachment import detach
from llmad.comparison import Comparison, Size, compared
from llmad.errors import UsageError
from llmad.evaluate import check_answers
from llmad.exam import Exam
from llmad.files import make, sweep, write_json, write_text
from llmad.folder import discard
from llmad.keeping import train_together
from llmad.launch import check_alone
from llmad.lock import locked
from llmad.memory import enough_memory
from llmad.plan import Plan, plan
from llmad.pretrained import Pretrained
from llmad.quantization import quantization
from llmad.recipe import Recipe
from llmad.registry import parse_spec, registry
from llmad.run import leave
from llmad.scoring import score_on
from llmad.setup import Ground, load_base, set_up_together, test_rows_of, tests_beside
from llmad.step import Step
from llmad.study import FILE, Entrant, Study, begun, check_free
from llmad.train import accelerator

_CURE = (
    "give a smaller --together, or lower per_device_train_batch_size and raise gradient_accumulation_steps by as much"
)


@dataclass(frozen=True)
class Planned:
    """Everything that is known before the first step.

    Attributes:
        study: what is compared.
        place: where it goes.
        entrants: the runs.
        kept: names of those that are over already.
        plans: of each adapter.
        together: how many are trained at the same time, at most.
        questions: that base and adapters are asked.
        device: where the base lies.
        quantization: of the base.
    """

    study: Study
    place: Path
    entrants: tuple[Entrant, ...]
    kept: frozenset[str]
    plans: Mapping[str, Plan]
    together: int
    questions: int
    device: str
    quantization: str | None

    def rows(self) -> list[dict[str, Any]]:
        """One a run."""
        return [
            {
                "run": one.name,
                "adapter": one.adapter,
                "spec": one.recipe.adapter,
                "seed": one.recipe.seed,
                "parameters": self.plans[one.adapter].trainable_parameters,
                "share": self.plans[one.adapter].share,
                "placement": self.plans[one.adapter].roles,
                "kept": one.name in self.kept,
            }
            for one in self.entrants
        ]

    def describe(self) -> dict[str, Any]:
        """The plan as plain data, for JSON."""
        more = {"questions": self.questions, "device": self.device, "quantization": self.quantization}
        return {"study": self.study.describe(), "output": str(self.place), "runs": self.rows(), **more}


@dataclass(frozen=True)
class Trained:
    """A run has taken a step."""

    run: str
    step: Step


Event = Planned | Trained | Scoring
Observe = Callable[[Any], None]


def compare(study: Study, observe: Observe, together: int | None = None, dry: bool = False) -> Comparison | None:
    """Train what a study compares, ask all adapters and the base the same questions, and say what tells them apart.

    Args:
        study: the validated study.
        observe: is told of every event.
        together: at most so many runs are trained at the same time; all where None.
        dry: stop before the first step, with nothing written.

    Returns:
        What came of it; None of a dry run.

    Raises:
        LlmadError: of every kind; until training begins nothing is written.
        Stopped: a signal came; the same study goes on with what is done.
    """
    check_alone("a comparison")
    place = study.place()
    with ExitStack() as held:
        if begun(place):
            if not dry:
                held.enter_context(locked(place))
            study.check_same(place)
        ground, planned = _planned(study, place, together)
        observe(planned)
        if dry:
            return None
        if not begun(place):
            held.enter_context(_new(place))
        sweep(place)
        write_json(place / FILE, study.describe())
        for group in _groups(planned):
            _train(ground, group, observe)
        return _scored(ground.base, planned, observe)


def _planned(study: Study, place: Path, together: int | None) -> tuple[Ground, Planned]:
    """Rows before the base, and the base before anything is written."""
    recipe, task = study.recipe, registry().task(study.recipe.task)
    loaded = _to_learn(study)
    questions = test_rows_of(_of_questions(study), task)
    check_answers(task, questions)
    entrants = study.entrants(place)
    kept = [one for one in entrants if resuming.is_kept(one.run, one.recipe, loaded[one.recipe.seed].rows)]

    device = accelerator()
    base = load_base(recipe, device)
    planned = Planned(
        study=study,
        place=place,
        entrants=tuple(entrants),
        kept=frozenset(one.name for one in kept),
        plans={name: plan(base.model, parse_spec(spec)) for name, spec in study.adapters.items()},
        together=min(together or len(entrants), len(entrants)),
        questions=len(questions),
        device=placement.devices(base.model),
        quantization=quantization(base.model),
    )
    _check_by_row(planned)
    return Ground(task, device, base, loaded, tests_beside(recipe, task, questions)), planned


def _to_learn(study: Study) -> dict[int, rows.Loaded]:
    """The rows of each seed; those of a file are the same for all."""
    recipe, task, first = study.recipe, registry().task(study.recipe.task), study.seeds[0]

    def read(seed: int) -> rows.Loaded:
        return rows.rows(task, "train", recipe.data, task.train_rows, seed, recipe.columns)

    return (
        {seed: read(seed) for seed in study.seeds} if recipe.data is None else dict.fromkeys(study.seeds, read(first))
    )


def _of_questions(study: Study) -> Recipe:
    """Generated questions are the same whatever the seeds are: those of `llmad evaluate`."""
    return study.recipe.model_copy(update={"seed": Exam().seed})


def _check_by_row(planned: Planned) -> None:
    """Refuse adapters at experts: they see the tokens of all rows in an order of their own."""
    for name, made in planned.plans.items():
        stacked = [site for site in made.sites if site.stack]
        if stacked and planned.together > 1:
            reason = f"adapter {name!r} sits at {stacked[0].label}, where tokens of all rows are mixed"
            raise UsageError("not-by-row", f"{reason}: it cannot be trained with others", "give --together 1")


@contextmanager
def _new(place: Path) -> Iterator[None]:
    """Hold a new output, which nobody has filled since it was chosen."""
    make(place)
    with locked(place):
        check_free(place)
        yield


def _groups(planned: Planned) -> Iterator[list[Entrant]]:
    """The runs that are left, as many at a time as go together."""
    left = [one for one in planned.entrants if one.name not in planned.kept]
    for start in range(0, len(left), planned.together):
        yield left[start : start + planned.together]


@enough_memory(_CURE)
def _train(ground: Ground, group: Sequence[Entrant], observe: Observe) -> None:
    """Train some runs at the same time, and leave the base as it was."""
    runs = set_up_together(ground, {one.name: (one.recipe, one.run) for one in group})
    with ExitStack() as opened:
        for own in runs:
            _clear(own.run.path)
            opened.enter_context(run_dir.opened(own.run, own.recipe.model_dump(mode="json")))
        train_together(runs, lambda own, step: observe(Trained(own.name, step)))
        for own in runs:
            leave(own, {})
    for own in runs:
        detach(ground.base.model, own.name)


def _clear(folder: Path) -> None:
    """Take away what a run has left that was stopped; another process may not have it."""
    if folder.exists():
        with locked(folder):
            discard(folder)


def _scored(base: Pretrained, planned: Planned, observe: Observe) -> Comparison:
    """Ask the base and all adapters, compare them, and write what came of it."""
    study, recipe = planned.study, planned.study.recipe
    exam = Exam(
        task=(recipe.task,),
        data=recipe.data,
        columns=recipe.columns,
        limit=recipe.max_eval_samples,
        batch_size=recipe.per_device_eval_batch_size,
    )
    with enough_memory("lower per_device_eval_batch_size"):
        results = score_on(base, [one.run.path for one in planned.entrants], exam, observe)
    found = compared(recipe.task, study.seeds, _sizes(planned), _marks(planned, results), _right(results[-1]))
    write_json(planned.place / "comparison.json", found.describe())
    write_text(planned.place / "comparison.md", found.markdown())
    return found


def _sizes(planned: Planned) -> dict[str, Size]:
    made, specs = planned.plans, planned.study.adapters
    return {name: Size(specs[name], made[name].trainable_parameters, made[name].share) for name in specs}


def _marks(planned: Planned, results: Sequence[Result]) -> dict[str, list[list[bool]]]:
    """Of each adapter, for every seed and question whether the answer was right."""
    by_run = {result.sheet.label: _right(result) for result in results}
    marks: dict[str, list[list[bool]]] = {}
    for one in planned.entrants:
        marks.setdefault(one.adapter, []).append(by_run[str(one.run.path)])
    return marks


def _right(result: Result) -> list[bool]:
    return [answer.correct for answer in result.answers]
