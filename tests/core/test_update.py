"""Updates of runs of tokens."""

import torch

from llmad.update import Update


def update(start, stop):
    return Update(start, stop, torch.ones(1, 2), torch.ones(3, 1), 1.0, None)


def test_an_update_is_for_its_run_of_tokens():
    flat = torch.arange(10).view(5, 2)
    assert torch.equal(update(1, 3).of(flat), flat[1:3])
    assert update(0, None).of(flat) is flat
    assert update(0, 5).of(flat) is flat
