"""Streams of random numbers within one another."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmad.dice import Dice


@given(st.lists(st.sampled_from([0, 1, 2, None]), max_size=30))
def test_streams_that_take_turns_draw_what_each_draws_alone(turns):
    torch.manual_seed(7)
    dice, seen = [Dice(seed) for seed in range(3)], {0: [], 1: [], 2: [], None: []}
    for turn in turns:
        if turn is None:
            seen[turn] += torch.rand(1).tolist()
        else:
            with dice[turn]:
                seen[turn] += torch.rand(1).tolist()
    for turn, seed in ((0, 0), (1, 1), (2, 2), (None, 7)):
        assert seen[turn] == loop(seed, len(seen[turn]))


def loop(seed, count):
    """One at a time: a vector is drawn in another order."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [float(torch.rand(1)) for _ in range(count)]


def test_nested_streams_go_on_where_they_were():
    first, second, seen = Dice(1), Dice(2), []
    with first:
        seen.append(float(torch.rand(1)))
        with second:
            other = float(torch.rand(1))
            with first:
                seen.append(float(torch.rand(1)))
        seen.append(float(torch.rand(1)))
        with first:
            seen.append(float(torch.rand(1)))
    assert seen == loop(1, 4)
    assert other == loop(2, 1)[0]


def test_an_error_gives_the_outer_stream_back():
    torch.manual_seed(3)
    with pytest.raises(KeyError), Dice(1):
        vars(torch)["nothing of this name"]
    assert float(torch.rand(1)) == loop(3, 1)[0]
