"""Write docs/reference.md from the code; `--check` fails where the page is not what the code says."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic_core import PydanticUndefined

import llmad
from llmad import hookspecs
from llmad.recipe import Recipe
from llmad.registry import registry

PAGE = Path(__file__).with_name("reference.md")
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("llmad_"))
COMMANDS = (
    "train", "evaluate", "merge", "inspect", "list-adapters", "list-backbones", "list-tasks", "plugins", "recipes",
)  # fmt: skip


def main() -> None:
    """Write the page, or compare it."""
    text = "\n".join(page()) + "\n"
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/reference.md is out of date: run python docs/generate.py")


def page() -> Iterator[str]:
    """The lines of the page; built-in plugins only, whatever else is installed."""
    yield "# Reference\n\nGenerated from the code by `docs/generate.py`.\n\n## Adapter methods\n"
    adapters = [offer.value for _, offer in built_in("adapter")]
    for method in adapters:
        if not isinstance(method, llmad.Preset):
            yield f"### {method.name}\n\n{method.summary()} Learning rate {method.learning_rate:g}{falls(method)}.\n"
            yield from options(method.model_fields)
    yield "## Presets\n\n| name | stands for | what |\n|---|---|---|"
    for preset in adapters:
        if isinstance(preset, llmad.Preset):
            yield f"| `{preset.name}` | `{preset.spec}` | {preset.summary()} |"
    yield ""
    yield "## Backbones\n\n| name | what | weights | known shapes |\n|---|---|---|---|"
    for _, offer in built_in("backbone"):
        backbone = offer.value
        yield f"| `{backbone.name}` | {backbone.summary} | {code(backbone.folders)} | {code(backbone.shapes)} |"
    yield "\n## Tasks\n\n| name | what | file in a data folder |\n|---|---|---|"
    for _, offer in built_in("task"):
        yield f"| `{offer.name}` | {offer.value.summary} | {code(offer.value.files.values())} |"
    yield "\n## Hooks\n\n| hook | what it returns |\n|---|---|"
    for name in HOOKS:
        yield f"| `{name}` | {first_line(getattr(hookspecs, name))} |"
    yield "\n## Recipe keys\n"
    yield from options(Recipe.model_fields, descriptions(Recipe))
    yield "## Public names\n\n| name | what |\n|---|---|"
    for name in llmad.__all__:
        yield f"| `{name}` | {first_line(getattr(llmad, name)) or getattr(llmad, name)} |"
    yield "\n## Commands\n"
    for command in COMMANDS:
        yield f"```\n{usage(command)}\n```\n"


def built_in(kind: Any) -> Iterator[tuple[str, Any]]:
    """The offers that ship with llmad."""
    return ((name, offer) for name, offer in registry().offers(kind) if offer.distribution == "llmad")


def options(fields: dict[str, Any], about: dict[str, str] | None = None) -> Iterator[str]:
    """A table of fields with their types and defaults."""
    yield f"| key | type | default |{' what |' if about else ''}\n|---|---|---|{'---|' if about else ''}"
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        default = "required" if default is PydanticUndefined else f"`{default}`"
        yield f"| `{name}` | {kind(field.annotation)} | {default} |{f' {about[name]} |' if about else ''}"
    yield ""


def kind(annotation: Any) -> str:
    """A type in words: the choices of a literal, the parts of a union, the bare type of a bounded one."""
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return kind(get_args(annotation)[0])
    if get_args(annotation):
        return " or ".join(kind(part) for part in get_args(annotation) if part is not type(None))
    return str(annotation.__name__)


def falls(method: Any) -> str:
    """How the learning rate depends on the model."""
    return " at width 4096, more at smaller widths" if method.rate_falls_with_width else ""


def descriptions(model: Any) -> dict[str, str]:
    """The lines of a docstring's Attributes."""
    lines = model.__doc__.partition("Attributes:")[2].splitlines()
    pairs = (line.strip().partition(": ") for line in lines if ": " in line)
    return {name: text.rstrip(".") for name, _, text in pairs}


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]


def code(names: Any) -> str:
    """Names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def usage(command: str) -> str:
    """What `llmad COMMAND --help` prints."""
    program = "import sys; from llmad_cli.app import main; sys.argv[0] = 'llmad'; main()"
    environment = {"COLUMNS": "110", "TERMINAL_WIDTH": "110", "NO_COLOR": "1"}
    run = subprocess.run(
        [sys.executable, "-c", program, command, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    return "\n".join(line.rstrip() for line in run.stdout.strip().splitlines())


if __name__ == "__main__":
    main()
