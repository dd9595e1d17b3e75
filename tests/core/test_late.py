"""Numbers on their way to the host."""

import pytest
import torch

from llmad.late import Late


def test_they_arrive_as_they_were_sent():
    late = Late([torch.tensor(1.5), torch.tensor([2.0], dtype=torch.float64)[0], torch.tensor(float("inf"))])
    assert late.arrived
    assert late.read() == [1.5, 2.0, float("inf")] == late.read()


def test_what_becomes_of_the_tensor_later_does_not_count():
    number = torch.tensor(3.0, requires_grad=True)
    late = Late([number])
    with torch.no_grad():
        number.zero_()
    assert late.read() == [3.0]


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator")
def test_they_arrive_from_an_accelerator():
    late = Late([torch.ones((), device=torch.accelerator.current_accelerator()), torch.zeros(())])
    assert late.read() == [1.0, 0.0]
    assert late.arrived
