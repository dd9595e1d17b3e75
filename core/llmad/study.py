"""Study: what a comparison is told: a recipe with several adapters and seeds, validated as a whole. No torch."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmad import recipe as recipes
from llmad.comparison import BASE
from llmad.errors import LlmadError, ResumeError, UsageError, nearest, together
from llmad.recipe import Layer, Recipe, text_form
from llmad.registry import parse_spec, registry
from llmad.run_dir import RunDir, choose

FILE = "study.json"
_OWN = {"adapter": "adapters", "seed": "seeds"}  # what a recipe has one of, to what a study has several of
_WHERE = {"adapter", "seed", "output_dir", "do_eval"}  # recipe keys that say nothing of what is compared
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_SEEDS = 1 << 63


@dataclass(frozen=True)
class Entrant:
    """One run of a study.

    Attributes:
        adapter: its name in the study.
        recipe: what it would be told alone.
        run: its directory.
    """

    adapter: str
    recipe: Recipe
    run: RunDir

    @property
    def name(self) -> str:
        """Of its directory, and of its adapter on the model."""
        return f"{self.adapter}-seed{self.recipe.seed}"


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        recipe: what all runs have in common; its adapter and seed are those of the first.
        adapters: name to spec.
        seeds: each adapter is trained with every one.
    """

    recipe: Recipe
    adapters: dict[str, str]
    seeds: tuple[int, ...]

    def describe(self) -> dict[str, Any]:
        """The study as plain data: what must be the same when it is gone on with."""
        told = self.recipe.model_dump(mode="json")
        common = {key: value for key, value in told.items() if key not in _WHERE}
        return {"adapters": self.adapters, "seeds": list(self.seeds), **common}

    def place(self) -> Path:
        """Where it goes: the output that was asked for, which is free or holds a study, or a free name.

        Raises:
            UsageError: something else is there.
            StorageError: it cannot be made.
        """
        wanted = self.recipe.output_dir
        if wanted is not None and begun(Path(wanted)):
            return Path(wanted)
        if wanted is not None:
            check_free(Path(wanted))
        return choose(wanted, f"{Path(self.recipe.backbone).name}-compare-{self.recipe.task}").path

    def entrants(self, place: Path) -> list[Entrant]:
        """Every run, adapter by adapter."""
        return [self._entrant(place, name, seed) for name in self.adapters for seed in self.seeds]

    def check_same(self, place: Path) -> None:
        """Refuse to go on with another study than the one that was begun.

        Raises:
            ResumeError: with every difference.
        """
        try:
            before = json.loads((place / FILE).read_bytes())
            keys = before.keys()
        except (OSError, ValueError, AttributeError, RecursionError):
            hint = "restore it, or give another --output"
            raise ResumeError("other-study", f"{place / FILE}: no study can be read", hint) from None
        now = json.loads(json.dumps(self.describe()))
        changed = [
            f"{key}: {before.get(key)!r} then, {now.get(key)!r} now"
            for key in dict.fromkeys([*keys, *now])
            if before.get(key) != now.get(key)
        ]
        if changed:
            words = f"{place} was begun as another study: {'; '.join(changed)}"
            raise ResumeError("other-study", words, "give another --output, or what it was begun with")

    def _entrant(self, place: Path, name: str, seed: int) -> Entrant:
        run = RunDir(place / f"{name}-seed{seed}")
        told = {"adapter": self.adapters[name], "seed": seed, "output_dir": str(run.path), "do_eval": False}
        return Entrant(name, self.recipe.model_copy(update=told), run)


def begun(place: Path) -> bool:
    """Whether a study was begun there."""
    return (place / FILE).is_file()


def check_free(place: Path) -> None:
    """Refuse a folder that holds something else than a study.

    Raises:
        UsageError: it does.
    """
    if RunDir(place).exists():
        raise UsageError("output-exists", f"{place} is not empty, and holds no study", "give another --output")


def load(layers: Sequence[Layer]) -> Study:
    """Put layers together.

    Raises:
        UsageError: every wrong key, value and name, one a line.
        DataError: the data file is missing, and nothing else is wrong.
    """
    told = {key: value for _, layer in layers for key, value in layer.items()}
    origins = {key: origin for origin, layer in layers for key in layer}
    problems = [*_unknown_keys(layers), *_beside(told, origins)]
    adapters = _adapters(told.get("adapters"), origins.get("adapters", "study"), problems)
    seeds = _seeds(told.get("seeds", [told.get("seed", 0)]), problems)
    first = next(iter(adapters.values()), registry().methods()[0].name)
    own = [*_OWN.values(), *_OWN]
    known = {key: value for key, value in told.items() if key in Recipe.model_fields and key not in own}
    common = [(origins[key], {key: value}) for key, value in known.items()]
    try:
        recipe = recipes.load([*common, ("adapters", {"adapter": first}), ("seeds", {"seed": (seeds or [0])[0]})])
    except LlmadError as error:
        raise together([*problems, error]) from None
    if problems:
        raise together(problems)
    return Study(recipe, adapters, tuple(seeds))


def _unknown_keys(layers: Sequence[Layer]) -> list[LlmadError]:
    known = [*_OWN.values(), *(key for key in Recipe.model_fields if key not in _OWN)]
    return [
        UsageError("unknown-key", f"{origin}: there is no key {key!r}", nearest(str(key), known))
        for origin, layer in layers
        for key in layer
        if key not in known and key not in _OWN
    ]


def _beside(told: Mapping[str, Any], origins: Mapping[str, str]) -> list[LlmadError]:
    """Keys of a recipe that a study has no room for."""
    faults = []
    if "adapter" in told:
        faults.append(f"{origins['adapter']}: adapter: a study has several; write adapters")
    if "seed" in told and "seeds" in told:
        faults.append(f"{origins['seed']}: seed: it stands beside seeds of {origins['seeds']}; give one of them")
    if told.get("frozen"):
        faults.append(f"{origins['frozen']}: frozen: the adapters of a study stand on the plain base, with none below")
    if told.get("auto_find_batch_size"):
        origin = origins["auto_find_batch_size"]
        faults.append(f"{origin}: auto_find_batch_size: the runs of a study share their batches; write what they are")
    if told.get("do_eval") is False:
        faults.append(f"{origins['do_eval']}: do_eval: a study always scores")
    return [UsageError("bad-value", fault) for fault in faults]


def _adapters(value: Any, origin: str, problems: list[LlmadError]) -> dict[str, str]:
    """Name to spec, of what can be read; what is wrong with the rest is added to the problems."""
    if not isinstance(value, Mapping | list) or not value:
        words = f"{origin}: adapters: give a list of specs, or a table of name to spec"
        problems.append(UsageError("bad-value", words if value is None else f"{words}, not {value!r}"))
        return {}
    pairs = list(value.items()) if isinstance(value, Mapping) else [(None, one) for one in value]
    found: dict[str, str] = {}
    for given, one in pairs:
        spec = text_form(one)
        name = _made(str(spec)) if given is None else str(given)
        try:
            _check(name, spec, found)
            found[name] = spec
        except LlmadError as error:
            problems.append(type(error)(error.code, f"{origin}: adapters: {error}", error.hint))
    return found


def _made(spec: str) -> str:
    """A name made of a spec: `lora[r=16]` is `lora-r-16`."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", spec).strip("-")


def _check(name: str, spec: Any, before: Mapping[str, str]) -> None:
    """Refuse what cannot be an adapter of a study."""
    if not isinstance(spec, str):
        raise UsageError("bad-value", f"{name}: {spec!r} is no spec", "write it as a text such as NAME[option=value]")
    method = parse_spec(spec)
    if not _NAME.fullmatch(name):
        hint = "write a table of name to spec, with short names of letters, digits, - and _"
        raise UsageError("bad-name", f"{name!r} cannot name an adapter", hint)
    if name == BASE:
        raise UsageError("bad-name", f"{name!r} is what the table calls the base without adapter", "take another name")
    if name in before:
        raise UsageError("bad-value", f"{name} is there twice", "write a table of name to spec, with other names")
    if method.takes_over():
        raise UsageError("bad-value", f"{name}: {method.name} acts through other adapters, and here each is alone")


def _seeds(value: Any, problems: list[LlmadError]) -> list[int]:
    """The seeds; what is wrong with them is added to the problems."""
    if not isinstance(value, list) or not value:
        problems.append(UsageError("bad-value", f"seeds: give a list of whole numbers, not {value!r}"))
        return []
    wrong = [one for one in value if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < _SEEDS]
    twice = [one for place, one in enumerate(value) if one in value[:place]]
    faults = [f"{one!r} is no whole number from 0 to 2**63 - 1" for one in wrong]
    faults += [f"{one!r} is there twice" for one in twice if one not in wrong]
    problems += [UsageError("bad-value", f"seeds: {fault}") for fault in faults]
    return [one for one in value if one not in wrong]
