"""The loss curve and the model card."""

import re

import pytest
import yaml

from llmad.errors import StorageError
from llmad.report import plot_loss, write_card
from llmad.score import tally
from tests.answers import scored

RECIPE = {"backbone": "abacus", "adapter": "lora[r=4]", "task": "arithmetic"}
METRICS = [{"step": step, "loss": 1 / step} for step in range(1, 9)]


@pytest.mark.parametrize("count", [0, 1, 8])
def test_the_plot_is_a_png(tmp_path, count):
    plot_loss(METRICS[:count], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_a_plot_that_cannot_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError):
        plot_loss(METRICS, tmp_path / "missing" / "loss.png")


def test_the_card_says_what_was_trained_and_what_came_out(tmp_path):
    scores = {"base": scored(200, 10), "adapter": scored(200, 180)}
    write_card(tmp_path / "README.md", RECIPE, [("rows", "6,000")], scores)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: llmad\nbase_model: abacus\n---\n\n# `lora[r=4]` on `abacus`\n")
    assert "| rows | 6,000 |" in card
    assert "| adapter | arithmetic | 200 | 90.0% | 85.1% to 93.4% | 50.0% | 0 |" in card


def test_a_card_without_scores_has_no_table_of_them(tmp_path):
    write_card(tmp_path / "README.md", RECIPE, [], {})
    assert "accuracy" not in (tmp_path / "README.md").read_text()


def test_a_card_cannot_be_torn_by_what_it_tells_of(tmp_path):
    evil = "x`|\n\n---\n# <script>alert(1)</script> [a](javascript:b) \u202e\x1b[31m"
    told = {"adapter": evil, "backbone": evil, "task": evil}
    write_card(tmp_path / "card.md", told, [("built on", evil), (evil, "1")], {evil: tally(evil, [])})
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {"library_name": "llmad", "base_model": evil}
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert [row.count("|") for row in rows] == [3] * 4 + [8] * 3
    outside = re.sub(r"(`+).+?\1(?!`)", "", body)
    assert "<" not in outside
    assert "](java" not in outside
    assert not {"\u202e", "\x1b"} & set(text)
