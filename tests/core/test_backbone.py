from types import SimpleNamespace

from llmad import Fused, Rows


def test_a_role_may_be_a_part_of_the_whole_output():
    assert Fused("qkv", part=1, of=3).rows(SimpleNamespace(), 12) == Rows(groups=1, stride=12, start=4, length=4)


def test_a_role_may_be_a_part_of_every_heads_block():
    rows = Fused("qkv", part=2, of=3, blocks="heads").rows(SimpleNamespace(heads=4), 24)
    assert rows == Rows(groups=4, stride=6, start=4, length=2)
