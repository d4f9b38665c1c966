"""Attention with sizes is attention over the tokens that the merged ones represent."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from vtm.size_attention import size_bias, size_bias_mask, size_bias_score_mod

SIZES = torch.tensor([[1, 3, 2, 5, 1], [4, 1, 1, 1, 2]])


def heads(length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, length, 16, generator=generator)


def repeated(x_BHLd: torch.Tensor) -> list[torch.Tensor]:
    """Each token as often as its size says, sample by sample."""
    return [x.repeat_interleave(sizes, dim=1)[None] for x, sizes in zip(x_BHLd, SIZES, strict=True)]


# On a CPU the uncompiled form is exact, and slow.
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_a_token_counts_as_the_equal_ones_that_it_represents() -> None:
    q, k, v = heads(4, 0), heads(5, 1), heads(5, 2)
    found = scaled_dot_product_attention(q, k, v, attn_mask=size_bias_mask(SIZES))
    flexed = flex_attention(q, k, v, score_mod=size_bias_score_mod(SIZES))
    plain = scaled_dot_product_attention(q, k, v)
    for sample, (keys, values) in enumerate(zip(repeated(k), repeated(v), strict=True)):
        expected = scaled_dot_product_attention(q[sample : sample + 1], keys, values)
        torch.testing.assert_close(found[sample : sample + 1], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(flexed[sample : sample + 1], expected, rtol=1e-5, atol=1e-5)
        assert float((plain[sample : sample + 1] - expected).abs().max()) > 0.01


def test_causal_masks_hide_what_comes_later() -> None:
    q, k, v = heads(5, 0), heads(5, 1), heads(5, 2)
    found = scaled_dot_product_attention(q, k, v, attn_mask=size_bias_mask(SIZES, causal=True))
    ones = scaled_dot_product_attention(q, k, v, attn_mask=size_bias_mask(torch.ones_like(SIZES), causal=True))
    torch.testing.assert_close(ones, scaled_dot_product_attention(q, k, v, is_causal=True))
    for last in range(5):
        seen = size_bias_mask(SIZES[:, : last + 1])
        row = slice(last, last + 1)
        expected = scaled_dot_product_attention(q[:, :, row], k[:, :, : last + 1], v[:, :, : last + 1], attn_mask=seen)
        torch.testing.assert_close(found[:, :, row], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_size_of_nothing_hides_a_token(dtype: torch.dtype) -> None:
    sizes = torch.tensor([[2, 0, 1]])
    q, k, v = (heads(3, seed)[:1].to(dtype) for seed in range(3))
    found = scaled_dot_product_attention(q, k, v, attn_mask=size_bias_mask(sizes).to(dtype))
    kept = [0, 2]
    seen = size_bias_mask(sizes[:, kept]).to(dtype)
    expected = scaled_dot_product_attention(q, k[:, :, kept], v[:, :, kept], attn_mask=seen)
    torch.testing.assert_close(found, expected)


def test_sizes_below_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="sizes must be 0 or more, got -2"):
        size_bias(torch.tensor([[1, -2]]))
