"""Several updates as one, beside each by itself."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llmad import stacked
from llmad.dropped import Drop
from llmad.layers import frozen_linear
from llmad.low_rank import updated
from llmad.update import Update

PLACE = nn.Linear(6, 10).double().requires_grad_(False)


def made(lengths, ranks, gap, dtype=torch.float64):
    """Updates of runs with a gap before each, and how many tokens there are."""
    found, edge = [], 0
    for number, (length, rank) in enumerate(zip(lengths, ranks, strict=False)):
        down, up = torch.randn(rank, 6, dtype=dtype), torch.randn(10, rank, dtype=dtype)
        both = down.requires_grad_(), up.requires_grad_()
        found.append(Update(edge + gap, edge + gap + length, *both, 1.0 + number, None))
        edge += gap + length
    return found, edge + gap


def both_ways(x, updates, loss=torch.sum):
    """Output and gradients, at once and each by itself."""
    matrices = [matrix for update in updates for matrix in (update.down, update.up)]
    found = []
    for most in (10**9, 0):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(stacked, "_MOST", most)
            out = updated(frozen_linear(PLACE.forward, x), x, updates)
            found.append([out.detach(), *torch.autograd.grad(loss(out), [x, *matrices], allow_unused=True)])
    return found


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.permutations([1, 2, 3, 4]), st.integers(0, 2))
def test_values_and_gradients_are_those_of_each_by_itself(lengths, ranks, gap):
    updates, tokens = made(lengths, ranks, gap)
    x = torch.randn(tokens, 6, dtype=torch.float64, requires_grad=True)
    for one, other in zip(*both_ways(x, updates, lambda out: out.sin().sum()), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("which", ["down", "up"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_stays_with_its_own_tokens(which, value):
    updates, tokens = made([2, 2], [3, 3], 1)
    getattr(updates[1], which).data[0] = value
    x = torch.randn(tokens, 6, dtype=torch.float64, requires_grad=True)
    ours, wanted = both_ways(x, updates)
    assert ours[0][:4].isfinite().all()
    assert ours[1][:4].isfinite().all()
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


def test_a_gradient_that_is_not_finite_stays_with_its_own_update():
    updates, tokens = made([2, 2], [3, 3], 0)
    x = torch.randn(tokens, 6, dtype=torch.float64, requires_grad=True)
    ours, wanted = both_ways(x, updates, lambda out: out[:2].sum() + torch.inf * out[2:].square().sum())
    assert [bool(one.isfinite().all()) for one in ours[2:]] == [True, True, False, False]
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


def test_it_is_for_several_updates_of_few_tokens_without_dropout():
    updates, tokens = made([2, 2], [3, 3], 0)
    x = torch.randn(tokens, 6, dtype=torch.float64)
    assert stacked.stack(x, updates) is not None
    assert stacked.stack(x, updates[:1]) is None
    assert stacked.stack(x.repeat(100, 1), updates) is None
    assert stacked.stack(x, [updates[0], updates[1]._replace(drop=Drop(0.1, 1))]) is None
    assert stacked.stack(x.float(), updates) is None
    assert stacked.stack(x.bfloat16(), made([2, 2], [3, 3], 0, torch.bfloat16)[0]) is None


def test_a_first_call_in_inference_mode_does_not_hinder_training():
    updates, tokens = made([2, 1], [2, 5], 3)
    x = torch.randn(tokens, 6, dtype=torch.float64)
    with torch.inference_mode():
        updated(frozen_linear(PLACE.forward, x), x, updates)
    updated(frozen_linear(PLACE.forward, x), x, updates).sum().backward()
    assert all(update.down.grad is not None for update in updates)
