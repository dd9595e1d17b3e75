"""Dropout by a seed: its statistics, and that the same seed is the same mask."""

import pytest
import torch
from torch.autograd import gradcheck

from llmad.dropped import Drop, draw, linear_of_dropped


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_the_share_is_dropped_and_the_mean_stays(share):
    x = torch.ones(1000, 999)
    y = Drop(share, 4)(x)
    off = 4 * (share * (1 - share) / x.numel()) ** 0.5
    assert (y == 0).double().mean().item() == pytest.approx(share, abs=off)
    assert y.mean().item() == pytest.approx(1, abs=off / (1 - share))
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - share)])


def test_elements_are_dropped_one_by_one():
    keep = Drop(0.5, 9).keep(torch.ones(4096, 64)).float() - 0.5
    correlations = keep.T @ keep / len(keep) / 0.25 - torch.eye(64)
    assert correlations.abs().max() < 0.1


def test_the_drawing_is_the_generators():
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append((draw(0.5), draw(0.5)))
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_the_mask_does_not_hang_on_the_number_of_threads():
    x, before = torch.randn(300, 301), torch.get_num_threads()
    masks = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        masks.append(Drop(0.3, 5).keep(x))
    torch.set_num_threads(before)
    assert torch.equal(*masks)


def test_global_generators_are_not_touched_by_a_drawing():
    drop, before = Drop(0.3, 5), torch.get_rng_state()
    drop(torch.ones(3, 5))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_dtype_stays(dtype):
    assert Drop(0.5, 1)(torch.ones(3, 7, dtype=dtype)).dtype == dtype


def test_gradcheck(monkeypatch):
    monkeypatch.setattr("llmad.dropped.draw", lambda share: Drop(share, 2))
    x, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 4, 5), (3, 5)))
    assert gradcheck(lambda x, weight: linear_of_dropped(x, weight, 0.4), (x, weight))
