"""`llmad inspect`: the model as a tree with roles, what a spec would adapt, and the parameters; no weights needed."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from llmad_cli.console import inert, out, print_json

if TYPE_CHECKING:
    from llmad.explain import Kind
    from llmad.plan import Plan


def inspect(
    backbone: Annotated[str, typer.Argument(help="A built-in name or shape, a local folder, or a hub id.")],
    adapter: Annotated[str | None, typer.Option("--adapter", "-a", help="An adapter spec.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how each place was found, and what has no role.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Draw a model as a tree with roles, and what an adapter would do to it."""
    from llmad import parse_spec
    from llmad.source import find

    find(backbone)
    spec = parse_spec(adapter) if adapter else None
    from llmad_cli.libraries import ready

    ready()
    from llmad.explain import kinds
    from llmad.match import layout
    from llmad.plan import plan
    from llmad.pretrained import skeleton

    model = skeleton(backbone)
    made, there = plan(model, spec), layout(model)
    rows = kinds(there.findings) if explain else []
    if as_json:
        found = {"explanation": [row.describe() for row in rows]} if explain else {}
        about = {"backbone": backbone, "described_by": there.backbone or None, "adapter": str(spec) if spec else None}
        print_json({**about, **made.describe(), **found})
        return
    out.print(_draw(backbone, _node("", model, _roles(there.sites), _roles(made.sites) if spec else {})))
    if explain:
        out.print(_explained(rows))
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
    """Path to the roles there, each with its number where there are several of it."""
    found: dict[str, Counter[str]] = {}
    for site in sites:
        found.setdefault(site.path, Counter())[site.role + ("@before" if site.before else "")] += 1
    return {
        path: [role if count == 1 else f"{role} x {count}" for role, count in roles.items()]
        for path, roles in found.items()
    }


def _explained(rows: "list[Kind]") -> Table:
    table = Table("places", "x", "role", "", "why", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(row.places, f"{row.count:,}", row.role or "-", row.confidence if row.role else "", row.why)
    return table


def _draw(title: str, node: _Node) -> Tree:
    tree = Tree(Text.assemble((inert(title), "bold"), f"  {node.kind}"))
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
        (inert(spec), "bold green"),
        f": {len(made.sites)} sites ({made.roles}), "
        f"{made.trainable_parameters:,} trained of {made.total_parameters:,} parameters ({made.share:.3%})",
        ("\nnot adapted: " + made.rest if made.rest else "", "dim"),
    )
