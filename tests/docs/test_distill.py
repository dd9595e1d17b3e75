"""docs/distill.md shows the question that is asked."""

import re
from pathlib import Path

from llmad.rationale import first


def test_the_question_is_the_one_that_is_asked() -> None:
    page = (Path(__file__).parents[2] / "docs" / "distill.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    row = {"instruction": "Tom has 3 apples and buys 4. How many has he?", "answer": "7"}
    assert (shown,) == first(row)
