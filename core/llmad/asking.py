"""Asking: one loaded base, several models on it, their answers kept as they come and counted at the end."""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from llmad import placement
from llmad.errors import LlmadWarning, ModelError
from llmad.evaluate import Question, acting, answer_batch, batches, questions
from llmad.exam import Manner
from llmad.files import make, storing, write_json
from llmad.journal import Journal
from llmad.lock import locked
from llmad.pretrained import Pretrained
from llmad.prompt import Prompt, Row
from llmad.score import Answer, Score, tally
from llmad.task import Task

SCORES = "scores.json"
_PROBED = 4  # questions that are asked to see whether an adapter changes anything


@dataclass(frozen=True)
class Sheet:
    """A task's rows for one model, and where its answers go.

    Attributes:
        who: the adapters that answer, as a stack; the base where there is none.
        label: what the model is called.
        task: reads and compares answers.
        rows: with `instruction` and `answer`.
        prompt: how a row becomes text.
        manner: how the rows are asked.
        places: folders for answers and scores.
        hashes: of base, adapter and data; what else decides on the answers is added here.
    """

    who: tuple[str, ...]
    label: str
    task: Task
    rows: Sequence[Row]
    prompt: Prompt
    manner: Manner
    places: tuple[Path, ...]
    hashes: Mapping[str, str | None]

    @property
    def kind(self) -> str:
        """`base` or `adapter`."""
        return "adapter" if self.who else "base"

    @property
    def file(self) -> str:
        """The name of the file of answers."""
        return f"{self.task.name}.jsonl" if self.who else f"base-{self.task.name}.jsonl"

    def all_hashes(self) -> dict[str, str | None]:
        """Hashes of all that decides on the answers; with the same ones the answers are the same."""
        return {**self.hashes, "prompt": self.prompt.fingerprint()[:16], "options": digest(asdict(self.manner))}


@dataclass(frozen=True)
class Scoring:
    """Evaluation has come to this answer; `who` is `base` or the adapter."""

    who: str
    task: str
    rows: int
    answer: Answer


@dataclass(frozen=True)
class Result:
    """What a sheet came to, and the answers in the order of its rows."""

    sheet: Sheet
    score: Score
    answers: tuple[Answer, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The score as plain data, with what it is of."""
        asked = asdict(self.sheet.manner)
        return {**self.score.describe(), **asked, "quirks": list(asked["quirks"]), "hashes": self.sheet.all_hashes()}


def ask(
    base: Pretrained, sheets: Sequence[Sheet], size: int, observe: Callable[[Any], None], mix: bool = True
) -> list[Result]:
    """Ask every sheet's questions, write answers and scores, and go on where an earlier process was stopped.

    Args:
        base: the base with the sheets' adapters attached.
        sheets: what to ask whom; sheets of one task are asked together.
        size: questions in a batch.
        observe: is told of every answer.
        mix: whether a batch may have rows of several adapters.

    Raises:
        LlmadError: of every kind.
    """
    with ExitStack() as stack:
        for place in dict.fromkeys(place for sheet in sheets for place in sheet.places):
            make(place)
            stack.enter_context(locked(place))
        return _ask(base, sheets, size, observe, mix)


def _ask(
    base: Pretrained, sheets: Sequence[Sheet], size: int, observe: Callable[[Any], None], mix: bool
) -> list[Result]:
    """As `ask`, in places that are locked."""
    desks = [_Desk(sheet, Journal(sheet.places[0] / sheet.file, _identity(sheet)), observe) for sheet in sheets]
    for name in dict.fromkeys(sheet.task.name for sheet in sheets):
        _ask_task(base, [desk for desk in desks if desk.sheet.task.name == name], size, mix)
    results = []
    for desk in desks:
        answers = tuple(desk.journal.ordered())
        results.append(Result(desk.sheet, tally(desk.sheet.task.name, answers, desk.journal.seconds), answers))
    for desk, result in zip(desks, results, strict=True):
        desk.journal.close(desk.sheet.places)
        for place in desk.sheet.places:
            _record(place / SCORES, result)
    return results


def check_changes(base: Pretrained, sheet: Sheet) -> None:
    """Refuse an adapter with which the model answers as the base does: it was not trained, or it is not there.

    Raises:
        ModelError: the next-token scores of some questions are those of the base, bit for bit.
    """
    model = base.model.eval()
    with acting(model, [sheet.who]):
        every = questions(model, base.tokenizer, sheet.task, sheet.rows, sheet.prompt, sheet.manner)
    asked = [question for question in every if question.room][:_PROBED]  # what has no room cannot be asked at all
    for question in asked:
        ids = torch.tensor([question.ids], device=placement.device(model))
        with torch.inference_mode():
            with acting(model, [()]):
                plain = model(input_ids=ids, use_cache=False).logits[:, -1]
            with acting(model, [sheet.who]):
                changed = model(input_ids=ids, use_cache=False).logits[:, -1]
        if not torch.equal(plain, changed):
            return
    if not asked:
        return
    reason = f"{sheet.label}: the adapter changes nothing: {len(asked)} questions have the scores of the base"
    raise ModelError("changes-nothing", reason, "train it; an untrained adapter is the identity")


def digest(content: Any) -> str:
    """A short sum of plain data."""
    return sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Desk:
    """Where a sheet's answers are gathered."""

    sheet: Sheet
    journal: Journal
    observe: Callable[[Any], None]

    def take(self, answers: Sequence[Answer], seconds: float) -> None:
        """Keep those that are new; `seconds` is what one took."""
        new = [answer for answer in answers if answer.index not in self.journal.answers]
        if new:
            self.journal.add(new, seconds * len(new))
        self.tell(new)

    def tell(self, answers: Sequence[Answer]) -> None:
        """Let the observer know."""
        for answer in answers:
            self.observe(Scoring(self.sheet.label, self.sheet.task.name, len(self.sheet.rows), answer))


def _ask_task(base: Pretrained, desks: Sequence[_Desk], size: int, mix: bool) -> None:
    """Ask what the journals do not have yet; a batch is asked as a whole, so that it is the one that it was."""
    asked: list[tuple[Question, _Desk]] = []
    for desk in desks:
        sheet = desk.sheet
        with acting(base.model, [sheet.who]):  # an adapter may leave less room than the base has
            own = questions(base.model, base.tokenizer, sheet.task, sheet.rows, sheet.prompt, sheet.manner, sheet.who)
        _say_too_long(sheet, own)
        asked += [(question, desk) for question in own]
        desk.tell(desk.journal.ordered())
    home = {id(question): desk for question, desk in asked}
    task, manner = desks[0].sheet.task, desks[0].sheet.manner
    for batch in batches([question for question, _ in asked], size, mix):
        if all(question.index in home[id(question)].journal.answers for question in batch):
            continue
        began = time.perf_counter()
        answers = answer_batch(base.model, base.tokenizer, task, batch, manner, named=True)
        seconds = (time.perf_counter() - began) / len(batch)
        for desk in desks:
            pairs = zip(batch, answers, strict=True)
            desk.take([answer for question, answer in pairs if home[id(question)] is desk], seconds)


def _say_too_long(sheet: Sheet, asked: Sequence[Question]) -> None:
    if count := sum(question.room == 0 for question in asked):
        reason = f"{sheet.label}: {count} questions of {sheet.task.name} are longer than the model has positions"
        warnings.warn(f"{reason}; they count as unanswered", LlmadWarning, stacklevel=2)


def _identity(sheet: Sheet) -> str:
    """With the same one, answers that were found earlier are the answers that would be found now."""
    return digest([sheet.all_hashes(), *(version(name) for name in ("llmad", "torch", "transformers"))])


def _record(path: Path, result: Result) -> None:
    """Put a score into the list of a folder's scores, in place of an earlier one of the same kind."""
    entry = {"who": result.sheet.kind, **result.describe()}
    others = [score for score in _scores(path) if _kind(score) != _kind(entry)]
    write_json(path, {"scores": [*others, entry]})


def _kind(score: Mapping[str, Any]) -> list[Any]:
    return [score[key] for key in ("who", "protocol", "task")]


def _scores(path: Path) -> list[dict[str, Any]]:
    """The scores that a folder has; a file that is no list of them is put aside, and no answer is lost for it."""
    if not path.exists():
        return []
    try:
        kept: list[dict[str, Any]] = json.loads(path.read_bytes())["scores"]
        [_kind(score) for score in kept]
    except (ValueError, KeyError, TypeError, RecursionError):
        aside = path.with_name(f"{path.name}.damaged")
        reason = f"{path} is no list of scores; it is kept as {aside.name}, and begun anew"
        warnings.warn(reason, LlmadWarning, stacklevel=2)
        with storing(path):
            path.replace(aside)
        return []
    return kept
