"""What a forward pass knows of packed rows."""

import pytest

import llmad
from llmad.packed import Rows, packing


def test_no_rows_are_packed_outside():
    assert llmad.packed_rows() is None
    with pytest.raises(KeyError), packing(Rows((2, 3), "sdpa")):
        vars(llmad.packed_rows())["none"]
    assert llmad.packed_rows() is None


def test_virtual_tokens_make_every_row_longer(llama):
    with packing(Rows((2, 3), "sdpa")):
        rows = llmad.packed_rows()
        assert (rows.text, rows.lengths) == ((2, 3), (2, 3))
        rows.lengthen(llama, (4, 0))
        rows.lengthen(llama, (4, 0))  # a forward pass that is made again
        assert rows.lengths == (6, 3)
        rows.lengthen(llama.model, (1, 1))
        assert (rows.text, rows.lengths) == ((2, 3), (7, 4))


def test_a_module_is_told_what_those_further_out_have_added(llama):
    with packing(Rows((2, 3), "sdpa")):
        rows = llmad.packed_rows()
        for _ in range(2):  # the second forward pass knows of all modules from the start
            assert rows.lengthen(llama, (4, 0)) == (2, 3)
            assert rows.lengthen(llama.model, (1, 1)) == (6, 3)
            assert rows.lengthen(llama.lm_head, (0, 2)) == (7, 4)
