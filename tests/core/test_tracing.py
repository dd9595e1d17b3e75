"""Tracing tells apart what shares a linear map, however the architecture cuts it up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmad.site import Rows
from llmad.tracing import rows, uses
from tests import zoo

Q, K, V = "attn.q", "attn.k", "attn.v"
HEADS = {Q: Rows(4, 24, 0, 8), K: Rows(4, 24, 8, 8), V: Rows(4, 24, 16, 8)}
THIRDS = {Q: Rows(1, 96, 0, 32), K: Rows(1, 96, 32, 32), V: Rows(1, 96, 64, 32)}
FUSED = {  # from the code of each architecture
    "bloom": ("transformer.h.0.self_attention.query_key_value", HEADS),
    "gpt_neox": ("gpt_neox.layers.0.attention.query_key_value", HEADS),
    "persimmon": ("model.layers.0.self_attn.query_key_value", HEADS),
    "gpt2": ("transformer.h.0.attn.c_attn", THIRDS),
    "openai-gpt": ("transformer.h.0.attn.c_attn", THIRDS),
    "mpt": ("transformer.blocks.0.attn.Wqkv", THIRDS),
    "codegen": (
        "transformer.h.0.attn.qkv_proj",
        {Q: Rows(4, 24, 0, 8), V: Rows(4, 24, 8, 8), K: Rows(4, 24, 16, 8)},
    ),
    "phi3": (
        "model.layers.0.self_attn.qkv_proj",
        {Q: Rows(1, 64, 0, 32), K: Rows(1, 64, 32, 16), V: Rows(1, 64, 48, 16)},
    ),
    "gpt_bigcode": (
        "transformer.h.0.attn.c_attn",
        {Q: Rows(1, 48, 0, 32), K: Rows(1, 48, 32, 8), V: Rows(1, 48, 40, 8)},
    ),
    "deepseek_v3": ("model.layers.0.self_attn.kv_b_proj", {K: Rows(4, 24, 0, 16), V: Rows(4, 24, 16, 8)}),
    "minimax": (
        "model.layers.1.self_attn.qkv_proj",
        {Q: Rows(4, 48, 0, 16), K: Rows(4, 48, 16, 16), V: Rows(4, 48, 32, 16)},
    ),
    "qwen3_next": ("model.layers.1.self_attn.q_proj", {Q: Rows(4, 32, 0, 16)}),
    "glm": ("model.layers.0.mlp.gate_up_proj", {"mlp.gate": Rows(1, 96, 0, 48), "mlp.up": Rows(1, 96, 48, 48)}),
}


@pytest.mark.parametrize("kind", FUSED)
def test_the_rows_are_those_that_the_code_uses(kind):
    path, wanted = FUSED[kind]
    model = zoo.build(kind)
    wide = len(next(iter(model.get_submodule(path).parameters())).T if kind in ("gpt2", "openai-gpt") else
               model.get_submodule(path).weight)  # fmt: skip
    found = uses(model, [path])[path]
    assert {role: rows(wide, own) for role, own in found.items()} == wanted


def test_a_model_that_cannot_be_run_without_weights_shows_nothing(monkeypatch):
    model = zoo.build("gpt2", layers=3)

    def fail(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(type(model), "forward", fail)
    assert uses(model, ["transformer.h.0.attn.c_attn"]) == {}


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 4), st.integers(0, 4))
def test_stretches_are_found_again(groups, length, before, after):
    wanted = Rows(groups, before + length + after, before, length)
    wide = groups * wanted.stride
    found = rows(wide, set(wanted.index()))
    assert found is not None
    assert found.index() == wanted.index()
    assert found.size == wanted.size


@given(st.integers(1, 30).flatmap(lambda wide: st.tuples(st.just(wide), st.sets(st.integers(0, wide - 1)))))
def test_rows_are_exact_or_not_there(case):
    wide, own = case
    found = rows(wide, own)
    assert found is None or set(found.index()) == own
