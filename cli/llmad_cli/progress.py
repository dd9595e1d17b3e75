"""What is shown while a run goes on: the plan before the first step, bars on a terminal, lines elsewhere."""

from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Column, Table
from rich.text import Text

from llmad.asking import Scoring
from llmad.budget import Budget, in_words
from llmad.checks import Checks
from llmad.compare import Planned, Trained
from llmad.run import Event, Finished, Prepared
from llmad.step import Step
from llmad_cli.bars import Bars
from llmad_cli.console import err, inert, out, print_rows, warn
from llmad_cli.evaluate import SCORE_COLUMNS, score_row


class ScoringView(Bars):
    """A bar a task with the running accuracy; it goes to the error stream, so that JSON stays clean."""

    def __init__(self) -> None:
        super().__init__(
            err,
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self.bars: dict[str, Any] = {}
        self.correct: dict[str, int] = {}

    def observe(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Scoring):
            self.scored(event)

    def scored(self, event: Scoring) -> None:
        """Move the bar of this task on."""
        key = inert(f"{event.who}: {event.task}")
        if key not in self.bars:
            self.bars[key] = self.progress.add_task(key, total=event.rows, note="")
            self.correct[key] = 0
        self.correct[key] += event.answer.correct
        done = int(self.progress.tasks[self.bars[key]].completed) + 1
        self.progress.update(self.bars[key], completed=done, note=f"{self.correct[key] / done:.1%} right")
        if not err.is_terminal and done == event.rows:
            share = f"{self.correct[key]} of {done} right ({self.correct[key] / done:.1%})"
            err.print(f"{key}: {share}", soft_wrap=True)


class TrainingView(ScoringView):
    """The plan, a bar with loss, tokens a second and time left, then the scores."""

    def __init__(self, dry: bool = False) -> None:
        super().__init__()
        self.dry = dry
        self.steps: Any = None
        self.tokens, self.seconds, self.seen = 0, 0.0, 0

    def observe(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Prepared():
                self.prepared(event)
            case Step():
                self.stepped(event)
            case Finished():
                self.finished(event)
            case _:
                super().observe(event)

    def prepared(self, event: Prepared) -> None:
        """Show what is known before the first step."""
        for fault in event.skipped:
            warn(f"checkpoint passed over: {fault}")
        for reason in event.checks.warnings():
            warn(reason)
        if isinstance(event.memory, Budget) and not event.memory.fits:
            warn(f"memory may be short: {_memory(event.memory)}; {event.memory.cure}")
        out.print(_plan(event), soft_wrap=not out.is_terminal)
        if self.dry and isinstance(event.memory, Budget):
            out.print(_parts(event.memory))

    def stepped(self, event: Step) -> None:
        """Move the bar on, or print a line now and then."""
        self.tokens, self.seconds, self.seen = self.tokens + event.tokens, self.seconds + event.seconds, self.seen + 1
        speed = f"{self.tokens / self.seconds:,.0f} tokens/s"
        if self.steps is None:
            self.steps = self.progress.add_task("train", total=event.steps, note="", completed=event.step - 1)
        self.progress.update(self.steps, completed=event.step, note=f"loss {event.loss:.4f}  {speed}")
        if not err.is_terminal and (event.step in (1, event.steps) or event.step % max(1, event.steps // 10) == 0):
            left = self.seconds / self.seen * (event.steps - event.step)
            err.print(f"step {event.step}/{event.steps}  loss {event.loss:.4f}  {speed}  {left:.0f} s left")

    def finished(self, event: Finished) -> None:
        """Show the scores and where everything lies."""
        self.progress.stop()
        if event.scores:
            rows = [{"who": who, **score_row(score.describe())} for who, score in event.scores.items()]
            print_rows(rows, {"who": "model", **SCORE_COLUMNS})
        said = "the run was done already, and nothing is left to do; " if event.already else ""
        out.print(inert(f"{said}run directory: {event.output}"), soft_wrap=True)


class ComparingView(ScoringView):
    """The runs of a study, a bar for the steps of all of them, then the scores."""

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self.quiet = quiet
        self.steps: Any = None
        self.losses: dict[str, float] = {}

    def observe(self, event: Any) -> None:
        """Show one event."""
        match event:
            case Planned():
                self.planned = event
                if not self.quiet:
                    _show_runs(event)
            case Trained():
                self.trained(event)
            case _:
                super().observe(event)

    def trained(self, event: Trained) -> None:
        """Move the bar on, or print a line now and then."""
        step = event.step
        self.losses[event.run] = step.loss
        left = [one.name for one in self.planned.entrants if one.name not in self.planned.kept]
        if self.steps is None:
            self.steps = self.progress.add_task("train", total=step.steps * len(left), note="")
        self.progress.update(self.steps, advance=1, note=f"{event.run} loss {step.loss:.4f}")
        if not err.is_terminal and (step.step in (1, step.steps) or step.step % max(1, step.steps // 10) == 0):
            err.print(inert(f"{event.run}: step {step.step}/{step.steps}  loss {step.loss:.4f}"), soft_wrap=True)


def _show_runs(event: Planned) -> None:
    """What will be trained on what, before the first step."""
    recipe = event.study.recipe
    kept = f", {len(event.kept)} of them done already" if event.kept else ""
    quantised = f", quantised as {event.quantization}" if event.quantization else ""
    facts = {
        "backbone": f"{recipe.backbone} on {event.device}{quantised}",
        "data": f"{recipe.data or f'task {recipe.task}'}, {event.questions:,} questions",
        "runs": f"{len(event.entrants)}, {event.together} at a time{kept}",
        "output": str(event.place),
    }
    for name, value in facts.items():
        out.print(Text.assemble((f"{name:<10}  ", "bold"), inert(value)), soft_wrap=True)
    rows = [{**row, "share": f"{row['share']:.2%}", "kept": "done" if row["kept"] else ""} for row in event.rows()]
    columns = {"run": "run", "spec": "adapter", "parameters": "parameters", "share": "share", "placement": "placement"}
    print_rows([{**row, "parameters": f"{row['parameters']:,}"} for row in rows], {**columns, "kept": "kept"})


def _plan(event: Prepared) -> Group:
    recipe, plan, checks = event.recipe, event.plan, event.checks
    left_out = f", {checks.left_out:,} left out (longer than {recipe.max_length} tokens)" if checks.left_out else ""
    place = f" from {event.resumed}" if event.resumed else ""
    goes_on = f", going on after step {event.done:,}{place}" if event.done else ""
    built_on = f" on top of {', '.join(recipe.frozen)}, frozen" if recipe.frozen else ""
    chats = f"{event.conversations:,} conversations of " if event.conversations else ""
    quantised = f", quantised as {event.quantization}" if event.quantization else ""
    facts = {
        "backbone": f"{recipe.backbone} on {event.device}{quantised}",
        "adapter": f"{recipe.adapter}{built_on}",
        "sites": f"{len(plan.sites)} ({plan.roles})",
        "parameters": f"{plan.trainable_parameters:,} trained of {plan.total_parameters:,} ({plan.share:.2%})",
        "data": f"{checks.rows:,} rows of {chats}{recipe.data or f'task {recipe.task}'}{left_out}",
        "tokens": f"{checks.trained_tokens:,} trained of {checks.tokens:,} ({checks.share:.0%})",
        "checks": f"no answer is cut, every row ends with {event.end}{_looked(checks)}",
        "steps": f"{event.steps:,} of {_rows_a_step(event)} rows, learning rate {event.learning_rate:g}{goes_on}",
        "batches": f"{recipe.per_device_train_batch_size} rows{_each(event)}, {event.batching}",
        **({"picked": event.picked} if event.picked else {}),
        "memory": _memory(event.memory),
        "output": str(event.output),
    }
    lines = [Text.assemble((f"{name:<10}  ", "bold"), inert(value)) for name, value in facts.items()]
    learnt = "on green" if out.is_terminal else ""
    question = (inert(event.question), learnt if recipe.train_on_prompt else "dim")
    marks = ("", "") if out.is_terminal else (">>>", "<<<")
    example = Text.assemble(question, (f"{marks[0]}{inert(event.answer)}{inert(event.end)}{marks[1]}", learnt))
    if not out.is_terminal:
        return Group(*lines, Text("example, with the trained tokens between >>> and <<<:"), example, Text())
    return Group(*lines, Panel(example, title="an example; the trained tokens are coloured", title_align="left"))


def _memory(budget: Budget | str) -> str:
    """What a run takes at its peak, in a line."""
    if isinstance(budget, str):
        return budget
    largest = sorted(budget.parts, key=lambda part: -part.bytes)[:4]
    unit, (whole, low, high, *each) = in_words(
        [budget.predicted, budget.lower, budget.upper, *(part.bytes for part in largest)]
    )
    room, (free,) = in_words([budget.room or 0])
    parts = ", ".join(f"{part.name} {size}" for part, size in zip(largest, each, strict=True))
    place = "" if budget.room is None else f" of {free} {room} free"
    return f"{whole} {unit} ({low} to {high}){place}: {parts}"


def _parts(budget: Budget) -> Table:
    """What takes it."""
    unit, sizes = in_words([part.bytes for part in budget.parts])
    table = Table("memory", Column(unit, justify="right"), "what", box=None, pad_edge=False)
    for part, size in zip(budget.parts, sizes, strict=True):
        table.add_row(part.name, size, part.what)
    return table


def _looked(checks: Checks) -> str:
    """What the training rows hold of test sets."""
    asked, held = (sum(getattr(leak, what) for leak in checks.leaks) for what in ("n", "exact"))
    share = f"{held:,} of {asked:,}" if held else f"none of {asked:,}"
    return f"; {share} test questions among them" if asked else ""


def _rows_a_step(event: Prepared) -> int:
    recipe = event.recipe
    return recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps * event.processes


def _each(event: Prepared) -> str:
    return f" in each of {event.processes} processes" if event.processes > 1 else ""
