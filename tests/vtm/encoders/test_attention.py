"""Attention in half precision, whatever the size of the scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vtm.encoders.attention import gather_values

TOLERANCE = {torch.bfloat16: 0.02, torch.float16: 0.003}
"""Relative to the largest value: scores, weights and values are rounded once each."""


def random_heads(tokens: int, scale: float, seed: int) -> Tensor:
    return scale * torch.randn(2, 3, tokens, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax_attention(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | float) -> Tensor:
    scores = queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5 + bias
    return (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)


def causal(tokens: int) -> Tensor:
    return torch.full((1, 1, tokens, tokens), -torch.inf).triu(1)


def sizes(tokens: int) -> Tensor:
    return torch.arange(1.0, tokens + 1).log().expand(2, 1, 1, tokens)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [None, sizes(17), causal(17)], ids=["plain", "sizes", "causal"])
def test_half_precision_is_softmax(dtype: torch.dtype, bias: Tensor | None) -> None:
    half = [random_heads(17, 1.0, seed).to(dtype) for seed in range(3)]
    exact = softmax_attention(*(x.double() for x in half), bias=0.0 if bias is None else bias.double())
    got = gather_values(*half, bias)
    assert got.dtype == dtype
    assert (got.double() - exact).abs().max() < TOLERANCE[dtype] * exact.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("scale", [40.0, 100.0])
def test_scores_beyond_every_exponent_find_their_winner(dtype: torch.dtype, scale: float) -> None:
    """Scores in the thousands: each row is its best key's value, and nothing overflows."""
    keys, values = torch.eye(8).expand(2, 3, 8, 8), random_heads(8, 1.0, 1)
    queries = scale * scale * torch.eye(8).flip(0).expand(2, 3, 8, 8)
    got = gather_values(queries.to(dtype), keys.to(dtype), values.to(dtype))
    assert torch.equal(got, values.to(dtype).flip(2).transpose(1, 2).flatten(2))


def test_a_frame_does_not_depend_on_the_scores_of_the_frame_beside_it() -> None:
    """A neighbour whose scores need their maximum taken off leaves the others as they are, to the bit."""
    queries, keys, values = (random_heads(17, 1.0, seed).to(torch.bfloat16) for seed in range(3))
    beside_quiet = gather_values(queries, keys, values)[:1]
    queries[1] *= 600
    assert torch.equal(gather_values(queries, keys, values)[:1], beside_quiet)
    assert torch.equal(gather_values(queries[:1], keys[:1], values[:1]), beside_quiet)
