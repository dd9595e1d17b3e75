"""What is made of the numbers that a step leaves."""

import math

import pytest
import torch

from llmad.errors import DivergedError
from llmad.late import Late
from llmad.step import Step, Underway

PLANNED = Step(3, 9, 0.5, math.nan, 1e-3, None, 100, 40, 2.0)


def underway(norm, loss, left=1.0, scale=1.0, scaled=False):
    late = Late([torch.tensor(number) for number in (norm, loss, left, scale)])
    return Underway(PLANNED, list(range(9, -1, -1)), "adapter 'a', ", scaled, late)


def test_a_step_that_went_well():
    one = underway(0.25, 1.5)
    assert one.over
    assert one.done() == Step(3, 9, 0.5, 1.5, 1e-3, 0.25, 100, 40, 2.0)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({"norm": math.inf, "loss": 1.0}, "loss 1.0, gradient norm inf"),
        ({"norm": 1.0, "loss": math.nan}, "loss nan, gradient norm 1.0"),
        ({"norm": 1.0, "loss": 1.0, "left": math.nan}, "a parameter is not finite"),
        ({"norm": math.inf, "loss": 1.0, "scaled": True}, "loss 1.0, gradient norm inf"),
        ({"norm": math.inf, "loss": math.inf, "scaled": True, "scale": 8.0}, "loss inf, gradient norm inf"),
    ],
)
def test_a_step_that_diverged(numbers, reason):
    with pytest.raises(DivergedError) as error:
        underway(**numbers).done()
    assert str(error.value) == f"adapter 'a', step 3, rows [0, 1, 2, 3, 4, 5, 6, 7]...: {reason}"


def test_a_step_that_overflowed_is_skipped():
    assert underway(math.inf, 1.0, scaled=True, scale=8.0).done().grad_norm is None
