"""The rows that an adapter acts on, taken out and put back."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmad.composition import Stage
from llmad.errors import ModelError
from llmad.packed import Rows, packing
from llmad.part import part, runs


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 3))
def test_rows_are_taken_and_put_back(chosen, times):
    own = tuple(row for row, wanted in enumerate(chosen) if wanted)
    if not own:
        return
    x = torch.arange(len(chosen) * times * 2.0).reshape(-1, 2)
    found = part(Stage(("a",), own, len(chosen)), x)
    mask = torch.tensor(chosen).repeat_interleave(times)
    assert torch.equal(found.take(x), x[mask])
    assert torch.equal(found.put(x, -found.take(x)), torch.where(mask[:, None], -x, x))


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=6), st.booleans())
def test_packed_rows_are_their_tokens(rows, flat):
    own = tuple(row for row, (_, wanted) in enumerate(rows) if wanted)
    if not own:
        return
    mask = torch.tensor([wanted for length, wanted in rows for _ in range(length)])
    x = torch.arange(len(mask) * 3.0).reshape(len(mask), 3)
    whole = x if flat else x[None]
    with packing(Rows(tuple(length for length, _ in rows), None)):
        found = part(Stage(("a",), own, len(rows)), whole)
        if not flat or len(mask) > 1:
            assert torch.equal(found.take(whole).reshape(-1, 3), x[mask])
        ids = part(Stage(("a",), own, len(rows)), mask.long()[None])  # (1, total): the ids of an embedding
        assert ids.take(mask.long()[None]).shape == (1, int(mask.sum()))


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 3), st.booleans())
def test_runs_are_the_tokens_of_the_rows(chosen, length, packed):
    own = tuple(row for row, wanted in enumerate(chosen) if wanted)
    if not own:
        return
    mask = torch.tensor(chosen).repeat_interleave(length)
    stage = Stage(("a",), own, len(chosen))
    if packed:
        with packing(Rows((length,) * len(chosen), None)):
            found = runs(stage, torch.zeros(1, len(mask), 2))
    else:
        found = runs(stage, torch.zeros(len(chosen), length, 2))
    assert [token for start, stop in found for token in range(start, stop)] == mask.nonzero().flatten().tolist()
    assert all(stop < start for (_, stop), (start, _) in pairwise(found))


def test_a_stage_for_all_rows_has_no_part():
    assert part(Stage(("a",)), torch.zeros(3, 2)) is None


def test_another_batch_is_refused():
    stage = Stage(("a",), (0,), 2)
    with pytest.raises(ModelError, match="given for 2 rows; the batch has 3"):
        part(stage, torch.zeros(3, 2))
    with packing(Rows((4, 5, 6), None)), pytest.raises(ModelError, match="given for 2 rows; the batch has 3"):
        part(stage, torch.zeros(1, 15, 2))
