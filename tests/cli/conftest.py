"""The command line, called in this process: what it prints, and its exit code."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from llmad import recipe
from llmad.registry import registry
from llmad.run import train_adapter
from llmad_cli.app import main


@dataclass(frozen=True)
class Result:
    """What a command left: exit code, output stream, error stream."""

    code: int
    out: str
    err: str


@pytest.fixture
def llmad(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """Run a command: `llmad("train", "--dry-run")`."""
    before = signal.getsignal(signal.SIGTERM)

    def llmad(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["llmad", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return Result(int(stop.value.code or 0), *capsys.readouterr())

    yield llmad
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def refused(llmad: Callable[..., Result], place: Path) -> Callable[..., str]:
    """Run a command that must be refused with a code: one line, no traceback, nothing written; return what it said."""

    def refused(code: int, *words: object) -> str:
        before = _content(place)
        result = llmad(*words)
        assert result.code == code, result.err
        assert result.err.count("error: ") == 1
        assert result.err.startswith("error: ")
        assert "Traceback" not in result.err
        assert result.out == ""
        assert _content(place) == before
        return result.err

    return refused


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny LLaMA with a tokenizer, as a folder."""
    make = run_path(str(Path(__file__).parents[1] / "stand_in.py"))["make"]
    return str(make(tmp_path_factory.mktemp("backbone") / "tiny"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, folder: str) -> Path:
    """A run that is over; tests only read it."""
    path = tmp_path_factory.mktemp("runs") / "done"
    rows = path.with_name("rows.json")
    rows.write_text(json.dumps(registry().task("arithmetic").rows("train", 8, 0)))
    short = {"per_device_train_batch_size": 2, "max_steps": 2, "output_dir": str(path)}
    layer = {"backbone": folder, "adapter": "lora", "task": "arithmetic", "data": str(rows), **short}
    train_adapter(recipe.load([("test", layer)]), lambda _: None)
    return path


def _content(place: Path) -> dict[str, Any]:
    return {str(path.relative_to(place)): path.read_bytes() if path.is_file() else None for path in place.rglob("*")}
