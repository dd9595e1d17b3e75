"""The registry: finds plugins, loads each under a guard, and knows every adapter, backbone, quantizer and task by name.

A plugin that breaks is reported and left out; it stops nothing but a run that names it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, Literal

import pluggy

from llmad import hookspecs
from llmad.backbone import Backbone
from llmad.errors import LlmadError, ModelError, UsageError, nearest
from llmad.options import split
from llmad.preset import Preset
from llmad.quantizer import Quantizer
from llmad.spec import AdapterSpec
from llmad.stopping import Stopped
from llmad.task import Task

Kind = Literal["adapter", "backbone", "quantizer", "task"]
BUILT_IN = "llmad"
ALLOW_LIST = "LLMAD_PLUGINS"
_HOOKS: dict[str, tuple[Kind, Callable[[Any], bool], str]] = {
    "llmad_adapters": (
        "adapter",
        lambda offer: isinstance(offer, Preset) or _is_class(offer, AdapterSpec),
        "an AdapterSpec class or a Preset",
    ),
    "llmad_backbones": ("backbone", lambda offer: isinstance(offer, Backbone), "a Backbone"),
    "llmad_quantizers": ("quantizer", lambda offer: _is_class(offer, Quantizer), "a Quantizer class"),
    "llmad_tasks": ("task", lambda offer: isinstance(offer, Task), "a Task"),
}


@dataclass(frozen=True)
class Offer:
    """One named thing that a plugin brings."""

    kind: Kind
    name: str
    value: Any
    distribution: str
    version: str

    @property
    def full_name(self) -> str:
        """`distribution:name`, which is unique."""
        return f"{self.distribution}:{self.name}"


@dataclass
class Plugin:
    """What is known of a plugin: where it comes from, what it offers, and what went wrong.

    `status` is `ok`, `broken`, `skipped` (not on the allow-list) or `incompatible` (another generation of the API).
    """

    name: str
    distribution: str
    version: str
    api: str
    status: Literal["ok", "broken", "skipped", "incompatible"] = "ok"
    error: str = ""
    offers: list[Offer] = field(default_factory=list)

    def fail(self, error: str) -> None:
        """Leave the plugin out, for this reason."""
        self.status, self.error, self.offers = "broken", error, []


class Registry:
    """Every plugin that is installed, and every adapter, backbone, quantizer and task by name."""

    def __init__(self, found: Iterable[tuple[EntryPoint, Distribution]]) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        allowed = _allow_list()
        self.plugins = [self._load(entry, distribution, allowed) for entry, distribution in found]
        self.plugins.sort(key=lambda plugin: (plugin.distribution != BUILT_IN, plugin.distribution, plugin.name))
        _check_allow_list(allowed, self.plugins)

    def offers(self, kind: Kind) -> Iterator[tuple[str, Offer]]:
        """Every offer of a kind with the name to use for it, which is the full one where the bare one is taken."""
        every = [offer for plugin in self.plugins for offer in plugin.offers if offer.kind == kind]
        for offer in every:
            rivals = [other for other in every if other.name == offer.name]
            alone = len(rivals) == 1 or offer.distribution == BUILT_IN
            yield (offer.name if alone else offer.full_name), offer

    def get(self, kind: Kind, name: str) -> Offer:
        """The offer of that name.

        Raises:
            UsageError: nothing has that name, or several have.
            ModelError: the plugin of that name is broken.
        """
        offers = dict(self.offers(kind))
        by_full_name = {offer.full_name: offer for offer in offers.values()}
        if offer := offers.get(name) or by_full_name.get(name):
            return offer
        if rivals := [offer.full_name for offer in by_full_name.values() if offer.name == name]:
            raise UsageError(
                f"ambiguous-{kind}",
                f"{kind} {name!r} is offered more than once",
                f"write {' or '.join(rivals)}",
            )
        for plugin in self.plugins:
            if plugin.status != "ok" and name in (plugin.name, f"{plugin.distribution}:{plugin.name}"):
                raise ModelError(
                    f"{plugin.status}-plugin",
                    f"{kind} {name!r}: plugin {plugin.name} of {plugin.distribution} {plugin.version}"
                    f" is {plugin.status}: {plugin.error}",
                    "see llmad plugins",
                )
        raise UsageError(f"unknown-{kind}", f"there is no {kind} {name!r}", nearest(name, list(offers)))

    def adapter(self, name: str, options: Mapping[str, Any]) -> AdapterSpec:
        """The spec of a method or a preset of that name, with these options."""
        found = self.get("adapter", name).value
        if isinstance(found, Preset):
            method, preset = split(found.spec, "adapter spec")
            found, options = self.get("adapter", method).value, {**preset, **options}
        if isinstance(found, Preset):
            raise ModelError("broken-preset", f"preset {name!r} stands for a preset, {found.name!r}, and no method")
        spec: AdapterSpec = found.read(options)
        return spec

    def methods(self) -> list[type[AdapterSpec]]:
        """Every adapter method."""
        return [offer.value for _, offer in self.offers("adapter") if not isinstance(offer.value, Preset)]

    def task(self, name: str) -> Task:
        """The task of that name; capitals do not matter."""
        names = {known.lower(): known for own, offer in self.offers("task") for known in (offer.full_name, own)}
        task: Task = self.get("task", names.get(name.lower(), name)).value
        return task

    def quantizers(self) -> list[type[Quantizer]]:
        """Every quantizer."""
        return [offer.value for _, offer in self.offers("quantizer")]

    def backbones(self) -> list[Backbone]:
        """Every backbone description."""
        return [offer.value for _, offer in self.offers("backbone")]

    def origin(self, spec: type[AdapterSpec]) -> Offer | None:
        """The offer that brought this spec class; None where no plugin did."""
        return next((offer for _, offer in self.offers("adapter") if offer.value is spec), None)

    def _load(self, entry: EntryPoint, distribution: Distribution, allowed: set[str] | None) -> Plugin:
        plugin = Plugin(entry.name, *_identity(distribution), entry.group.rpartition(".")[2])
        if not plugin.distribution:
            plugin.fail("its distribution has no readable metadata")
        elif entry.group != hookspecs.GROUP:
            plugin.status = "incompatible"
            plugin.error = f"it is written for {entry.group}; this llmad speaks {hookspecs.GROUP}"
        elif plugin.distribution != BUILT_IN and allowed is not None and not allowed & _names(plugin):
            plugin.status, plugin.error = "skipped", f"it is not named in {ALLOW_LIST}"
        else:
            self._guarded_load(plugin, entry)
        return plugin

    def _guarded_load(self, plugin: Plugin, entry: EntryPoint) -> None:
        unique = f"{plugin.distribution}:{plugin.name}"
        try:
            module = entry.load()
            _check_spelling(module)
            self.manager.register(module, name=unique)
            plugin.offers = [offer for hook in _HOOKS for offer in self._call(hook, module, plugin)]
        except (KeyboardInterrupt, Stopped):
            raise
        except BaseException as error:  # a stranger's code may raise anything, SystemExit included
            plugin.fail(f"{type(error).__name__}: {' '.join(str(error).split())}")
            if self.manager.has_plugin(unique):
                self.manager.unregister(name=unique)

    def _call(self, hook: str, module: object, plugin: Plugin) -> Iterator[Offer]:
        kind, fits, wanted = _HOOKS[hook]
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            if implementation.plugin is module:
                for value in implementation.function():
                    name = getattr(value, "name", None)
                    if not fits(value) or not isinstance(name, str) or not name:
                        raise TypeError(f"{hook} returned {value!r}, which is not {wanted} with a name")
                    if missing := _missing(value):
                        raise TypeError(f"{value.__name__} defines no {missing}")
                    yield Offer(kind, name, value, plugin.distribution, plugin.version)


@cache
def registry() -> Registry:
    """The registry of what is installed; made once, when something is first asked of it."""
    return Registry(_entry_points())


def parse_spec(text: "str | AdapterSpec") -> AdapterSpec:
    """Read an adapter spec such as `lora`, or `lora[r=16,sites=attn.q+attn.v,layers=8:]`.

    Raises:
        UsageError: no such method, option, role or layer.
    """
    if isinstance(text, AdapterSpec):
        return text
    return registry().adapter(*split(text, "adapter spec"))


def parse_quantizer(text: str) -> Quantizer:
    """Read a quantizer such as `nf4`, or `nf4[double_quant=false]`.

    Raises:
        UsageError: no such quantizer or option.
    """
    name, options = split(text, "quantizer")
    quantizer: Quantizer = registry().get("quantizer", name).value.read(options)
    return quantizer


def _is_class(offer: Any, base: type) -> bool:
    return isinstance(offer, type) and issubclass(offer, base) and offer is not base


def _missing(offer: Any) -> str:
    """What a class that is offered must define and does not; empty where nothing lacks."""
    if _is_class(offer, AdapterSpec):
        return "build(self, site)" if not {"build", "assemble"} & _defined(offer, AdapterSpec) else ""
    if _is_class(offer, Quantizer):
        return ", ".join(name for name in ("config", "owns", "dequantize") if name not in _defined(offer, Quantizer))
    return ""


def _defined(offer: type, base: type) -> set[str]:
    """The names that a class or one of its bases below `base` defines."""
    return {name for cls in offer.__mro__[: offer.__mro__.index(base)] for name in vars(cls)}


def _entry_points() -> Iterator[tuple[EntryPoint, Distribution]]:
    """Every entry point of any generation of the API; each distribution once, the first on the path."""
    seen: set[str] = set()
    family = hookspecs.GROUP.rpartition(".")[0] + ".v"
    for distribution in distributions():
        entries = [entry for entry in distribution.entry_points if entry.group.startswith(family)]
        if entries and (name := _identity(distribution)[0].lower()) not in seen:  # the slower one to read
            seen.update({name} - {""})
            yield from ((entry, distribution) for entry in entries)


@lru_cache(maxsize=1)  # one distribution brings many plugins in a row, and every look reads all its metadata
def _identity(distribution: Distribution) -> tuple[str, str]:
    """Name and version; empty where the metadata is broken or gone."""
    try:
        return distribution.name or "", distribution.version or ""
    except (KeyError, UnicodeDecodeError):
        return "", ""


def _names(plugin: Plugin) -> set[str]:
    return {plugin.name, plugin.distribution, f"{plugin.distribution}:{plugin.name}"}


def _allow_list() -> set[str] | None:
    """Names of plugins or distributions; None where everything installed is allowed."""
    value = os.environ.get(ALLOW_LIST)
    return None if value is None else {name.strip() for name in value.split(",") if name.strip()}


def _check_allow_list(allowed: set[str] | None, plugins: list[Plugin]) -> None:
    known = set().union(*(_names(plugin) for plugin in plugins)) if plugins else set()
    for name in sorted((allowed or set()) - known):
        raise UsageError(
            "unknown-plugin",
            f"{ALLOW_LIST} names {name!r}, which is not installed",
            nearest(name, sorted(known)),
        )


def _check_spelling(module: object) -> None:
    """pluggy passes over a hook whose name it does not know, and a function without the marker; both are faults."""
    for name in dir(module):
        function = getattr(module, name)
        marked = hasattr(function, f"{hookspecs.PROJECT}_impl")
        if marked and name not in _HOOKS:
            raise LlmadError("misspelt-hook", f"there is no hook {name!r}; {nearest(name, list(_HOOKS))}")
        if name in _HOOKS and not marked:
            raise LlmadError("unmarked-hook", f"{name} is not marked with @hookimpl")
