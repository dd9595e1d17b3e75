from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad import Fused, Rows


def test_a_role_may_be_a_part_of_the_whole_output():
    assert Fused("qkv", part=1).rows(SimpleNamespace(), 12) == Rows(groups=1, stride=12, start=4, length=4)


def test_a_role_may_be_a_part_of_every_heads_block():
    rows = Fused("qkv", part=2, blocks="heads").rows(SimpleNamespace(heads=4), 24)
    assert rows == Rows(groups=4, stride=6, start=4, length=2)


def test_the_parts_may_be_as_wide_as_the_config_says():
    config = SimpleNamespace(heads=4, key_heads=2)
    fused = [Fused("qkv", part, ("heads", "key_heads", "key_heads")) for part in range(3)]
    assert [part.rows(config, 64) for part in fused] == [Rows(1, 64, 0, 32), Rows(1, 64, 32, 16), Rows(1, 64, 48, 16)]


def test_shares_are_a_ratio():
    """Falcon's groups: eight heads of queries to one of keys and one of values."""
    config = SimpleNamespace(heads=16, key_heads=2)
    rows = Fused("qkv", 1, ("heads", "key_heads", "key_heads"), blocks="key_heads").rows(config, 2 * 10 * 3)
    assert rows == Rows(groups=2, stride=30, start=24, length=3)


def test_the_number_of_blocks_may_be_the_familys_own():
    assert Fused("qkv", 2, blocks=4).rows(SimpleNamespace(), 24) == Rows(groups=4, stride=6, start=4, length=2)


@pytest.mark.parametrize(("when", "holds"), [
    ({}, True),
    ({"new": True}, True),
    ({"new": False}, False),
    ({"new": True, "shared": True}, False),
    ({"unheard": True}, False),
])  # fmt: skip
def test_a_place_may_depend_on_the_config(when, holds):
    assert Fused("qkv", 0, when=when).holds(SimpleNamespace(new=True, shared=False)) == holds


def test_a_place_that_depends_on_the_config_can_be_a_key():
    assert Fused("qkv", 0, when={"new": True}) in {Fused("qkv", 0, when={"new": True})}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 4))
def test_the_parts_of_a_linear_take_every_row_once(shares, groups, unit):
    out_features = groups * unit * sum(shares)
    fused = [Fused("x", part, tuple(shares), blocks="groups") for part in range(len(shares))]
    rows = [part.rows(SimpleNamespace(groups=groups), out_features) for part in fused]
    assert [part.size for part in rows] == [groups * unit * share for share in shares]
    assert sorted(row for part in rows for row in part.index()) == list(range(out_features))


@pytest.mark.parametrize(("shares", "blocks", "out_features"), [
    ((1, 1), 1, 7),
    ((1, 1, 1), "heads", 16),
    (("heads", 1), 1, 24),
])  # fmt: skip
def test_outputs_that_cannot_be_parted_so_are_refused(shares, blocks, out_features):
    with pytest.raises(ValueError, match=f"qkv: {out_features} outputs are not"):
        Fused("qkv", 0, shares, blocks).rows(SimpleNamespace(heads=4), out_features)
