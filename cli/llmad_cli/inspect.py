"""`llmad inspect`: the model as a tree with roles, what a spec would adapt, and the parameters; no weights needed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from llmad_cli.console import out, print_json

if TYPE_CHECKING:
    from llmad.plan import Plan


def inspect(
    backbone: Annotated[str, typer.Argument(help="A built-in name or shape, a local folder, or a hub id.")],
    adapter: Annotated[str | None, typer.Option("--adapter", "-a", help="An adapter spec.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Draw a model as a tree with roles, and what an adapter would do to it."""
    from llmad import parse_spec
    from llmad.source import find

    find(backbone)
    spec = parse_spec(adapter) if adapter else None
    from llmad.match import sites
    from llmad.plan import plan
    from llmad.pretrained import skeleton

    model = skeleton(backbone)
    made = plan(model, spec)
    if as_json:
        print_json({"backbone": backbone, "adapter": str(spec) if spec else None, **made.describe()})
        return
    out.print(_draw(backbone, _node("", model, _roles(sites(model)), _roles(made.sites) if spec else {})))
    out.print(_totals(made, str(spec) if spec else None))


@dataclass(frozen=True)
class _Node:
    """A module: its name, what it is, its roles, those that would be adapted, its children."""

    name: str
    kind: str
    roles: tuple[str, ...]
    adapted: tuple[str, ...]
    children: tuple["_Node", ...]

    @property
    def shape(self) -> tuple[Any, ...]:
        """Everything but the name: modules that agree in it are drawn once."""
        return self.kind, self.roles, self.adapted, self.children


def _node(path: str, module: Any, roles: dict[str, list[str]], adapted: dict[str, list[str]]) -> _Node:
    children = (
        _node(f"{path}.{name}" if path else name, child, roles, adapted) for name, child in module.named_children()
    )
    kind = type(module).__name__
    if hasattr(module, "in_features"):
        kind += f" {module.in_features} -> {module.out_features}"
    name = path.rpartition(".")[2]
    return _Node(name, kind, tuple(roles.get(path, ())), tuple(adapted.get(path, ())), tuple(children))


def _roles(sites: Any) -> dict[str, list[str]]:
    """Path to the roles there."""
    found: dict[str, list[str]] = {}
    for site in sites:
        found.setdefault(site.path, []).append(site.role + ("@before" if site.before else ""))
    return found


def _draw(title: str, node: _Node) -> Tree:
    tree = Tree(Text.assemble((title, "bold"), f"  {node.kind}"))
    _grow(tree, node)
    return tree


def _grow(tree: Tree, node: _Node) -> None:
    """Add the children; a run of equal ones becomes one branch."""
    children = list(node.children)
    while children:
        first = children.pop(0)
        last = first
        while children and children[0].shape == first.shape and first.name.isdigit():
            last = children.pop(0)
        name = first.name if last is first else f"{first.name}-{last.name}"
        _grow(tree.add(_label(name, first)), first)


def _label(name: str, node: _Node) -> Text:
    text = Text.assemble((name, "bold" if node.roles else ""), (f"  {node.kind}", "dim"))
    if node.roles:
        text.append(f"  {' '.join(node.roles)}", "cyan")
    if node.adapted:
        text.append(f"  <- {' '.join(node.adapted)}", "bold green")
    return text


def _totals(made: "Plan", spec: str | None) -> Text:
    if spec is None:
        return Text(f"{made.total_parameters:,} parameters, {len(made.sites)} sites")
    return Text.assemble(
        (spec, "bold green"),
        f": {len(made.sites)} sites ({made.roles}), "
        f"{made.trainable_parameters:,} trained of {made.total_parameters:,} parameters ({made.share:.3%})",
    )
