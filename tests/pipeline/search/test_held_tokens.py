"""Candidates' tokens stay in memory as far as they fit, those used last the longest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from pipeline.search import held_tokens
from pipeline.search.held_tokens import HeldTokens

CLIP_BYTES = 3 * 5 * 2
"""Of 3 tokens of 5 channels in float16."""


class CountedCache:
    """Clips of random tokens; it keeps which were read."""

    def __init__(self) -> None:
        self.was_read: list[int] = []

    def read(self, positions: Sequence[int], columns: tuple[str, ...]) -> Iterator[Any]:
        assert columns == ("tokens",)
        for position in positions:
            self.was_read.append(position)
            yield self.clip(position)

    @staticmethod
    def clip(position: int) -> Any:
        return SimpleNamespace(tokens=np.random.default_rng(position).normal(size=(3, 5)).astype(np.float16))


@pytest.fixture
def cache() -> CountedCache:
    return CountedCache()


@pytest.fixture
def held(cache: CountedCache, monkeypatch: pytest.MonkeyPatch) -> HeldTokens:
    monkeypatch.setattr(held_tokens, "MOST_HELD_BYTES", 2 * CLIP_BYTES)
    return HeldTokens(cast(Any, cache))


def test_what_is_held_is_not_read_again(held: HeldTokens, cache: CountedCache) -> None:
    first = held.of([4, 2])
    again = held.of([2, 4])
    assert cache.was_read == [4, 2]
    assert all(torch.equal(x, y) for x, y in zip(first, reversed(again), strict=True))
    assert torch.allclose(first[0].float().norm(dim=1), torch.ones(3), atol=2e-3)


def test_those_used_longest_ago_make_room(held: HeldTokens, cache: CountedCache) -> None:
    held.hold(1, cache.clip(1))
    assert not held.is_full
    held.hold(2, cache.clip(2))
    assert held.is_full
    held.of([1])
    held.of([3])
    held.of([1])
    assert cache.was_read == [3], "clip 2 was let go"
    held.of([2])
    assert cache.was_read == [3, 2]


def test_more_candidates_than_fit_are_all_given(held: HeldTokens, cache: CountedCache) -> None:
    assert [tuple(x.shape) for x in held.of(range(7))] == [(3, 5)] * 7
    assert cache.was_read == list(range(7))
