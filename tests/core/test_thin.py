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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_thin_product_lies_column_by_column(dtype):
    """What the products that it goes into are quick with."""
    assert thin(torch.randn(6, 5).to(dtype), torch.randn(3, 5).to(dtype)).T.is_contiguous()
