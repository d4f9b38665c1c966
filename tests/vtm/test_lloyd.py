"""Lloyd steps: never worse, nothing empty, and those of a plain loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vtm.lloyd import lloyd_groups


def kept(sum_JD: Tensor, group_J: Tensor, num_groups: int) -> float:
    """Summed cosine to the groups' mean directions."""
    total_MD = torch.zeros(num_groups, sum_JD.shape[1], dtype=torch.float64).index_add_(0, group_J, sum_JD.double())
    return float(total_MD.norm(dim=1).sum())


def drawn(tokens: int, groups: int, dim: int, seed: int, kinds: int) -> tuple[Tensor, Tensor]:
    """Sums of various lengths, many of them equal where `kinds` is small, and groups none of which is empty."""
    generator = torch.Generator().manual_seed(seed)
    unit_KD = torch.nn.functional.normalize(torch.randn(kinds, dim, generator=generator), dim=1)
    length_J = torch.randint(0, 9, (tokens, 1), generator=generator).float()
    sum_JD = unit_KD[torch.randint(kinds, (tokens,), generator=generator)] * length_J
    group_J = torch.cat([torch.arange(groups), torch.randint(groups, (tokens - groups,), generator=generator)])
    return sum_JD, group_J[torch.randperm(tokens, generator=generator)]


@settings(max_examples=200)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 999), st.integers(1, 30), st.data())
def test_more_is_kept_and_no_group_is_empty(tokens: int, dim: int, seed: int, kinds: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, tokens))
    sum_JD, group_J = drawn(tokens, groups, dim, seed, kinds)
    before = kept(sum_JD, group_J, groups)
    for steps in (0, 1, 2, 5):
        after_J = lloyd_groups(sum_JD, group_J, groups, steps)
        assert torch.bincount(after_J, minlength=groups).min() > 0
        assert len(torch.bincount(after_J)) == groups
        now = kept(sum_JD, after_J, groups)
        assert now >= before - 1e-4
        before = now
    assert torch.equal(lloyd_groups(sum_JD, group_J, groups, 0), group_J)


def test_steps_are_those_of_a_plain_loop() -> None:
    sum_JD, group_J = drawn(60, 7, 5, 3, 60)
    wanted = group_J.tolist()
    for _ in range(3):
        means = [torch.stack([s for s, g in zip(sum_JD, wanted, strict=True) if g == m]).sum(dim=0) for m in range(7)]
        wanted = [max(range(7), key=lambda m: float(s @ means[m] / means[m].norm())) for s in sum_JD]
    assert lloyd_groups(sum_JD, group_J, 7, 3).tolist() == wanted


def test_a_group_that_nothing_joins_takes_the_token_that_loses_most() -> None:
    along, across = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    # Both groups point the same way, so the first of them takes all, and the second what is across.
    sum_JD = torch.stack([4 * along, 4 * along, 4 * along, 2 * across, 1 * across])
    group_J = torch.tensor([0, 0, 1, 0, 1])
    direction = lloyd_groups(sum_JD, group_J, 2, 1)
    assert kept(sum_JD, direction, 2) > kept(sum_JD, group_J, 2)
    same = torch.stack([along] * 4)
    assert sorted(lloyd_groups(same, torch.tensor([0, 1, 2, 2]), 3, 2).tolist()) != [0, 0, 0, 0]
    assert torch.bincount(lloyd_groups(same, torch.tensor([0, 1, 2, 2]), 3, 2), minlength=3).min() == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_it_ends_where_nothing_changes(threads: int) -> None:
    sum_JD, group_J = drawn(200, 11, 16, 5, 200)
    torch.set_num_threads(threads)
    settled = lloyd_groups(sum_JD, group_J, 11, 100)
    assert torch.equal(lloyd_groups(sum_JD, settled, 11, 1), settled)
