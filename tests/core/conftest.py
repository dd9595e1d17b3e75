"""What tests of whole runs share: a backbone folder, recipes for it, and a run that is over."""

import json
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from llmad import recipe
from llmad.recipe import Recipe
from llmad.registry import registry
from llmad.run import train_adapter

_STAND_IN = run_path(str(Path(__file__).parents[1] / "stand_in.py"))


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE that splits digits, with pad, bos and eos."""
    return _STAND_IN["make_tokenizer"]()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny LLaMA with a tokenizer, as a folder."""
    return str(_STAND_IN["make"](tmp_path_factory.mktemp("backbone") / "tiny"))


@pytest.fixture(scope="session")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of twelve rows."""
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps(registry().task("arithmetic").rows("train", 12, 0)))
    return str(path)


@pytest.fixture(scope="session")
def told(folder: str, few_rows: str) -> Callable[..., Recipe]:
    """A recipe of a short run on twelve rows: `told(max_steps=4)`."""

    def told(**values: Any) -> Recipe:
        short = {"per_device_train_batch_size": 2, "max_steps": 4, "logging_steps": 1, "learning_rate": 1e-2}
        what = {"backbone": folder, "adapter": "lora", "task": "arithmetic", "data": few_rows}
        return recipe.load([("test", {**what, **short, **values})])

    return told


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, told: Callable[..., Recipe]) -> Path:
    """A run that is over, scores included; tests only read it."""
    path = tmp_path_factory.mktemp("runs") / "done"
    more = {"data": None, "do_eval": True, "max_eval_samples": 3, "save_steps": 2, "gradient_accumulation_steps": 2}
    train_adapter(told(output_dir=str(path), **more), lambda _: None)
    return path
