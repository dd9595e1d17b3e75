"""Products with a thin matrix, whatever the layouts that come in."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmad.thin import across, thin, widen_

SIZES = st.integers(1, 9)
DTYPES = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])


def matrix(height, width, dtype, turned):
    made = torch.randn(width, height).T if turned else torch.randn(height, width)
    return made.to(dtype)


@settings(deadline=None)
@given(SIZES, SIZES, SIZES, DTYPES, st.booleans(), st.booleans())
def test_they_are_the_plain_products(tokens, wide, r, dtype, one, other):
    x, weight = matrix(tokens, wide, dtype, one), matrix(r, wide, dtype, other)
    y, near = matrix(tokens, r, dtype, one), {torch.bfloat16: 0.1, torch.float16: 0.02}.get(dtype, 1e-5)
    torch.testing.assert_close(thin(x, weight), x @ weight.T, atol=near, rtol=near)
    torch.testing.assert_close(across(y, x), y.T @ x, atol=near, rtol=near)
    out = torch.randn(tokens, wide).to(dtype)
    wanted = out.double() + 0.5 * y.double() @ weight.double()
    assert widen_(out, y, weight, 0.5) is out
    torch.testing.assert_close(out.double(), wanted, atol=near, rtol=near)


@pytest.mark.parametrize("r", [3, 16, 40])
def test_a_thin_matrix_may_be_less_thin(r):
    x, weight = torch.randn(6, 5), torch.randn(r, 5)
    torch.testing.assert_close(thin(x, weight), x @ weight.T)


def test_few_numbers_lie_column_by_column():
    """Which the products that they go into are quick with."""
    assert thin(torch.randn(9, 5), torch.randn(3, 5)).T.is_contiguous()
