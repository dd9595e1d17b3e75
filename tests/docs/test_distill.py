"""docs/distill.md is true: its commands run, and the question that it shows is the one that is asked."""

import os
import re
import subprocess
import sys
from pathlib import Path

from llmad.rationale import first

PAGE = (Path(__file__).parents[2] / "docs" / "distill.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_commands_run(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-ec", block("bash")], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "runs" / "student" / "adapter").is_dir()


def test_the_question_is_the_one_that_is_asked() -> None:
    row = {"instruction": "Tom has 3 apples and buys 4. How many has he?", "answer": "7"}
    assert (block("text").rstrip("\n"),) == first(row)
