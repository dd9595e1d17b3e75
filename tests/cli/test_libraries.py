"""The large libraries are imported without looking for garbage, which is looked for again afterwards."""

import gc
import os
import subprocess
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


LEFT = """
import atexit, sys
from llmad_cli import app
class Held:
    def __del__(self): print("taken apart")
held = Held()
atexit.register(print, "registered")
def main():
    print("said", end=" ")
    sys.exit(int(sys.argv[2]))
app.main = main
app.run()
"""


def test_inspect_ends_with_all_said_and_done_and_nothing_taken_apart(python):
    assert python(LEFT, "inspect", "0") == "said registered\n"


def test_another_command_ends_as_python_does(python):
    assert python(LEFT, "train", "0") == "said registered\ntaken apart\n"


def test_an_inspect_that_fails_keeps_its_code():
    done = subprocess.run([sys.executable, "-c", LEFT, "inspect", "3"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (3, b"")


def test_a_reader_who_is_gone_is_no_success():
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-c", LEFT, "inspect", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=buffered) as process:
        process.stdout.close()
    assert process.returncode == 120


def test_transformers_draws_no_bars():
    from transformers.utils import logging

    logging.enable_progress_bar()
    ready()
    assert not logging.is_progress_bar_enabled()
