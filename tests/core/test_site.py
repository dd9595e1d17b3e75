from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmad import Rows, Site
from llmad.around import _put_rows, _take_rows


@st.composite
def some_rows(draw):
    stride = draw(st.integers(1, 12))
    start = draw(st.integers(0, stride - 1))
    length = draw(st.integers(1, stride - start))
    return Rows(draw(st.integers(1, 6)), stride, start, length)


def output(rows, seed=0):
    return torch.randn(2, 3, rows.groups * rows.stride, generator=torch.Generator().manual_seed(seed))


@given(some_rows())
def test_index_agrees_with_the_view(rows):
    out = output(rows)
    assert torch.equal(out[..., rows.index()], _take_rows(out, rows))
    assert len(rows.index()) == rows.size


@given(some_rows())
def test_putting_back_what_was_taken_changes_nothing(rows):
    out = output(rows)
    assert torch.equal(_put_rows(out, _take_rows(out, rows), rows), out)


@given(some_rows())
def test_taking_gives_what_was_put_and_the_rest_stays(rows):
    out, part = output(rows), torch.randn(2, 3, rows.size)
    after = _put_rows(out, part, rows)
    rest = sorted(set(range(out.shape[-1])) - set(rows.index()))
    assert torch.equal(_take_rows(after, rows), part)
    assert torch.equal(after[..., rest], out[..., rest])


def test_rows_of_bloom_and_of_gpt2():
    assert Rows(groups=2, stride=6, start=2, length=2).index() == [2, 3, 8, 9]
    assert Rows(groups=1, stride=6, start=4, length=2).index() == [4, 5]


SITE = Site("h.0.qkv", "attn.q", 0, 8, 8, Rows(2, 12, 0, 4))


def test_a_label_tells_roles_of_one_linear_apart():
    assert SITE.label == "h.0.qkv[attn.q]"
    assert replace(SITE, before=True).label == "h.0.qkv[attn.q]@before"
    assert replace(SITE, rows=None).label == "h.0.qkv"


def test_slots_of_one_module_differ():
    assert len({SITE.slot, replace(SITE, role="attn.k").slot, replace(SITE, before=True).slot}) == 3
    assert all(site.slot.isidentifier() for site in (SITE, replace(SITE, before=True)))


@pytest.mark.parametrize(
    ("role", "linear"), [("attn.q", True), ("path", True), ("head", True), ("mlp", False), ("embed", False)]
)
def test_linear_says_whether_the_place_is_a_linear_map(role, linear):
    assert replace(SITE, role=role).linear is linear


def test_describe_is_plain_data():
    assert SITE.describe()["rows"] == {"groups": 2, "stride": 12, "start": 0, "length": 4}
