"""What a method does on a tiny model of an architecture, from attaching to detaching; a cell of docs/coverage.md.

python tests/coverage.py        writes the page anew
"""

import copy
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from torch import nn

import llmad

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
METHODS = {
    "lora": "lora",
    "series": "series",
    "parallel": "parallel",
    "ia3": "ia3",
    "prompt": "prompt[num_virtual_tokens=2]",
    "prefix": "prefix[num_virtual_tokens=2,prefix_projection=false]",
}
OK = "ok"


def row(base: nn.Module, methods: Mapping[str, str] = METHODS) -> dict[str, str]:
    """The cells of a model, by method: `ok`, or the reason of the refusal; anything wrong is an AssertionError."""
    base.requires_grad_(False)  # some mixers take another path, of other roundings, where a weight is trained
    logits(base)  # some models set themselves up in the first call
    return {name: cell(base, spec) for name, spec in methods.items()}


def cell(base: nn.Module, spec: str) -> str:
    """Attach, train a step, save, load, merge, detach."""
    model, before = copy.deepcopy(base), logits(base)
    known = snapshot(model)
    try:
        llmad.attach(model, spec)
    except llmad.LlmadError as refusal:
        assert snapshot(model) == known, "a refused attach left its traces"
        return str(refusal)
    virtual = spec.startswith("pr")
    assert virtual or torch.equal(logits(model), before), "a fresh adapter changes the output"
    disturb(model)
    check_gradients(model)
    changed = logits(model)
    assert not torch.allclose(changed, before, atol=1e-6), "the adapter changes nothing"
    merged = check_files(base, model, changed, merge=spec == "lora")
    llmad.detach(model)
    assert snapshot(model) == known, "detaching left its traces"
    assert torch.equal(logits(model), before), "the base computes something else after detaching"
    return merged


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    """What the model makes of two short texts."""
    ids = torch.randint(3, 97, (2, 7), generator=torch.Generator().manual_seed(7))
    out: torch.Tensor = model(input_ids=ids).logits
    return out.clone()


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that detaching has to give back: classes, attributes, values, flags."""
    return {
        "classes": {path: type(module) for path, module in model.named_modules()},
        "values": {name: value.numpy().tobytes() for name, value in model.state_dict().items()},
        "flags": {name: weight.requires_grad for name, weight in model.named_parameters()},
        "own": {path: sorted(vars(module)) for path, module in model.named_modules()},
    }


def disturb(model: nn.Module) -> None:
    """Give the adapter weights that do something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, weight in llmad.parameters(model):
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))


def check_gradients(model: nn.Module) -> None:
    """A step's gradients reach every weight of the adapter, those of experts that had tokens, and nothing else."""
    ids = torch.randint(3, 97, (4, 12), generator=torch.Generator().manual_seed(8))
    own = dict(llmad.parameters(model))
    model.train()
    model(input_ids=ids).logits.float().square().mean().backward()
    model.eval()
    idle = [name for name, weight in own.items() if weight.grad is None and ".experts" not in name]
    still = [name for name, weight in own.items() if weight.grad is not None and not weight.grad.any()]
    ours = {id(weight) for weight in own.values()}
    base = [name for name, weight in model.named_parameters() if weight.grad is not None and id(weight) not in ours]
    assert not idle, f"no gradient reaches {idle}"
    assert not still, f"the gradient of {still} is zero"
    assert not base, f"the base has gradients: {base}"


def check_files(base: nn.Module, model: nn.Module, wanted: torch.Tensor, merge: bool) -> str:
    """Save, load on a fresh copy, and merge there."""
    other = copy.deepcopy(base)
    with TemporaryDirectory() as folder:
        llmad.save(model, f"{folder}/adapter")
        llmad.load(other, f"{folder}/adapter")
    assert torch.equal(logits(other), wanted), "the loaded adapter computes something else"
    if not merge:
        return OK
    try:
        llmad.merge(other)
    except llmad.LlmadError as refusal:
        return f"{OK}; {refusal}"
    assert torch.allclose(logits(other), wanted, atol=1e-4), "the merged model computes something else"
    return OK


def page(rows: Mapping[str, Mapping[str, str]], unbuilt: Mapping[str, str]) -> str:
    """The page: a table of cells, reasons by number."""
    reasons = list(dict.fromkeys(text for cells in rows.values() for text in cells.values() if text != OK))
    full = sum(all(text == OK for text in cells.values()) for cells in rows.values())
    lines = [
        "# Methods and architectures\n",
        "Generated by `tests/coverage.py`, which the tests hold to be true cell by cell. Each cell is a tiny random",
        "model with the method at its defaults: attached, a fresh one changes no bit (virtual tokens apart), gradients",
        "reach all of the adapter and nothing else, saved, loaded, detached bit for bit, and LoRA merged. A number is",
        "a refusal in the words below; where it follows `ok`, merging alone is refused.\n",
        f"{len(rows)} architectures of transformers {transformers.__version__}, {full} of them with every method.\n",
        f"| architecture | {' | '.join(METHODS)} |\n|---|{'---|' * len(METHODS)}",
    ]
    for kind, cells in rows.items():
        lines.append(f"| `{kind}` | {' | '.join(_short(cells[name], reasons) for name in METHODS)} |")
    lines += ["", *(f"{number}. {text}" for number, text in enumerate(reasons, 1)), "\n## Not built\n"]
    lines += [f"- `{kind}`: {reason}" for kind, reason in unbuilt.items()]
    return "\n".join(lines) + "\n"


def _short(text: str, reasons: list[str]) -> str:
    if text == OK:
        return OK
    return f"{OK} {reasons.index(text) + 1}" if text.startswith(OK) else str(reasons.index(text) + 1)


def read(text: str) -> dict[str, dict[str, str]]:
    """The cells of a page, as `row` gives them."""
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {
        kind.strip("`"): {
            name: OK if short == OK else reasons[short.removeprefix(f"{OK} ")]
            for name, short in zip(METHODS, cells, strict=True)
        }
        for kind, *cells in table
    }


def main(build: Callable[[str], nn.Module], kinds: list[str], unbuilt: Mapping[str, str]) -> None:
    """Write the page, and say what went wrong where something did."""
    rows = {}
    for kind in kinds:
        base = build(kind)
        try:
            rows[kind] = row(base)
        except Exception as error:  # the page needs every row: say which one fails, and go on
            print(f"{kind}: {type(error).__name__}: {error}"[:300], flush=True)
    PAGE.write_text(page(rows, unbuilt), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    import zoo

    wanted = sys.argv[1:] or [kind for kind in zoo.TYPES if kind not in zoo.UNBUILT]
    main(zoo.build, wanted, zoo.UNBUILT)
