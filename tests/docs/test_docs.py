"""The docs are true: their code runs, their commands run, the generated page is what the code says."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for kind, body in BLOCK.findall(text) if kind == language]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/architecture.md", "docs/plugins.md"])
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), namespace)


@pytest.mark.parametrize(
    "page", ["docs/tutorial.md", "docs/evaluation.md", "docs/data.md", "docs/distill.md", "docs/compare.md"]
)
def test_commands_run(page: str, tmp_path: Path, warm: Path) -> None:
    script = "set -e\n" + "\n".join(blocks(page, "bash"))
    path = os.pathsep.join([str(warm), str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_reference_is_what_the_code_says() -> None:
    run = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_every_code_that_is_raised_has_a_sentence() -> None:
    faults = run_path(str(ROOT / "docs" / "error_page.py"))["faults"]()
    assert faults == []


def test_a_code_made_of_parts_stands_for_all_that_fit() -> None:
    codes = run_path(str(ROOT / "docs" / "error_page.py"))["codes"]
    (first,) = ast.parse("f'ambiguous-{kind}'").body
    assert isinstance(first, ast.Expr)
    assert codes(first.value) == [f"ambiguous-{kind}" for kind in ("adapter", "backbone", "quantizer", "task")]
    (first,) = ast.parse("f'nothing-{kind}-such'").body
    assert isinstance(first, ast.Expr)
    assert codes(first.value) == ["nothing-*-such"]


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.md")))
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:core|plugins|cli|docs|tests|examples|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page} names {name}"


def test_ci_finds_the_readme_test_command() -> None:
    lines = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.endswith("pytest")]
    assert len(lines) == 1
    assert lines[0].startswith("python3 -m venv")
