"""docs/coverage.md is true, cell by cell: every method on a tiny model of every architecture."""

import pytest
import transformers

from tests import coverage, zoo

KINDS = [kind for kind in zoo.TYPES if kind not in zoo.UNBUILT]
KNOWN = coverage.read(coverage.PAGE.read_text(encoding="utf-8"))


VIRTUAL = ("prompt", "prefix")  # each attaches after a rehearsal on a second model, which takes its time
QUICK = ("llama", "bloom", "opt", "gptj", "gpt_neox", "gpt2", "qwen3", "gemma2")  # the others have a slow test


def check(kind, methods):
    found = coverage.row(zoo.build(kind), methods)
    if transformers.__version__ in coverage.PAGE.read_text(encoding="utf-8"):
        assert found == {name: KNOWN[kind][name] for name in methods}


@pytest.mark.parametrize("kind", KINDS)
def test_row(kind):
    methods = {name: spec for name, spec in coverage.METHODS.items() if name not in VIRTUAL or kind in QUICK}
    check(kind, methods)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in QUICK])
def test_row_of_virtual_tokens(kind):
    check(kind, {name: coverage.METHODS[name] for name in VIRTUAL})


def test_the_page_has_every_architecture_that_can_be_built():
    if transformers.__version__ in coverage.PAGE.read_text(encoding="utf-8"):
        assert list(KNOWN) == KINDS
    assert len(KNOWN) >= 150


def test_a_page_is_read_as_it_was_written():
    cells = dict.fromkeys(coverage.METHODS, "ok") | {"lora": "ok; it is tied", "prefix": "there is no cache"}
    rows = {"one": dict.fromkeys(coverage.METHODS, "ok"), "two": cells}
    assert coverage.read(coverage.page(rows, {"three": "it is not there"})) == rows
