"""The large libraries are imported without looking for garbage, which is looked for again afterwards."""

import gc
import sys

from llmad_cli.libraries import ready

IMPORTED = """
import gc, sys
from llmad_cli.libraries import ready
seen = []
gc.callbacks.append(lambda phase, _: seen.append(phase))
ready()
print("torch" in sys.modules, len(seen), gc.isenabled(), gc.get_freeze_count() > 100_000)
"""


def test_nothing_is_collected_while_they_are_imported_or_of_them(python):
    assert python(IMPORTED).split() == ["True", "0", "True", "True"]


def test_who_has_imported_them_keeps_its_own_way_of_collecting():
    assert "transformers.modeling_utils" in sys.modules
    before = gc.isenabled(), gc.get_freeze_count()
    ready()
    assert (gc.isenabled(), gc.get_freeze_count()) == before


def test_transformers_draws_no_bars():
    from transformers.utils import logging

    logging.enable_progress_bar()
    ready()
    assert not logging.is_progress_bar_enabled()
