"""docs/coverage.md is true, cell by cell: every method on a tiny model of every architecture."""

import pytest
import transformers

from tests import coverage, zoo

KNOWN = coverage.read(coverage.PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", [kind for kind in zoo.TYPES if kind not in zoo.UNBUILT])
def test_row(kind):
    found = coverage.row(zoo.build(kind))
    if transformers.__version__ in coverage.PAGE.read_text(encoding="utf-8"):
        assert found == KNOWN[kind]


def test_the_page_has_every_architecture_that_can_be_built():
    if transformers.__version__ in coverage.PAGE.read_text(encoding="utf-8"):
        assert list(KNOWN) == [kind for kind in zoo.TYPES if kind not in zoo.UNBUILT]
    assert len(KNOWN) >= 150


def test_a_page_is_read_as_it_was_written():
    cells = dict.fromkeys(coverage.METHODS, "ok") | {"lora": "ok; it is tied", "prefix": "there is no cache"}
    rows = {"one": dict.fromkeys(coverage.METHODS, "ok"), "two": cells}
    assert coverage.read(coverage.page(rows, {"three": "it is not there"})) == rows
