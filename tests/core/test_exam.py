"""What an evaluation is told: all of what is wrong is said at once, without torch."""

import subprocess
import sys
from dataclasses import replace

import pytest

from llmad.errors import UsageError
from llmad.exam import Exam, Manner, manner, read
from llmad.prompt import Prompt
from llmad.registry import registry
from llmad.task import Released


def test_tasks_are_named_with_commas():
    assert read({"task": " svamp, addsub ,"}).task == ("svamp", "addsub")
    assert read({"task": "svamp,addsub,svamp"}).task == ("svamp", "addsub")
    assert read({}) == Exam()


FAULTS = {
    "key": ({"batchsize": 4}, "unknown-key", "batch_size"),
    "task": ({"task": "svmp"}, "unknown-task", "svamp"),
    "protocol": ({"protocol": "papre"}, "unknown-protocol", "paper"),
    "prompt": ({"prompt": "chatt"}, "unknown-prompt", "chat"),
    "number": ({"limit": 0}, "bad-value", ""),
    "device": ({"device_map": "cpuu"}, "bad-value", ""),
    "quantizer": ({"quantize": "nf5"}, "unknown-quantizer", "nf4"),
    "dtype": ({"dtype": "float8"}, "unknown-dtype", "float16"),
}


@pytest.mark.parametrize(("given", "code", "near"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cannot_be_meant_is_refused(given, code, near):
    with pytest.raises(UsageError) as error:
        read(given)
    assert error.value.code == code
    assert near in error.value.hint
    assert str(next(iter(given))) in str(error.value)


def test_all_faults_are_said_at_once():
    with pytest.raises(UsageError) as error:
        read({"limit": -1, "protocol": "x", "nonsense": 1})
    assert len(str(error.value).splitlines()) == 3


def test_strict_is_greedy_and_stops_when_an_answer_is_declared():
    task = registry().task("arithmetic")
    assert manner(Exam(), task) == Manner("strict", task.max_new_tokens)
    assert manner(Exam(max_new_tokens=5, stop=False), task) == Manner("strict", 5, stop=False)


def test_paper_asks_as_the_released_scripts_do_and_says_what_they_do():
    released = Released(Prompt("T"), Prompt("A"), num_beams=4, max_new_tokens=32, quirks=("It is odd.",))
    task = replace(registry().task("arithmetic"), released=released)
    assert manner(Exam(protocol="paper"), task) == Manner("paper", 32, 4, False, ("It is odd.",))
    assert manner(Exam(protocol="paper"), replace(task, released=None)).stop is False


def test_no_torch_is_needed():
    subprocess.run([sys.executable, "-c", "import llmad.exam, sys; assert 'torch' not in sys.modules"], check=True)
