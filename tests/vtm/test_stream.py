"""A stream merged within bounds, against one tree over everything."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vtm import MergeError
from vtm.agglomeration import agglomerate
from vtm.stream import SLACK, TreeStream
from vtm.tree import cut_groups

WANTED = 60


def chunks(count: int, size: int = 80, dim: int = 12) -> list[torch.Tensor]:
    """Chunks of unit tokens about directions that drift and come back."""
    generator = torch.Generator().manual_seed(2)
    middle_KC = torch.randn(40, dim, generator=generator)
    made = []
    for chunk in range(count):
        which_J = (torch.randint(15, (size,), generator=generator) + 5 * chunk) % 40
        made.append(F.normalize(middle_KC[which_J] + 0.5 * torch.randn(size, dim, generator=generator), dim=1))
    return made


def streamed(parts: list[torch.Tensor], cut_sure: bool = False) -> tuple[torch.Tensor, TreeStream, int]:
    """(S,) where each token went, the stream, and the most tokens that were alive."""
    stream, at, most = TreeStream(WANTED), torch.zeros(0, dtype=torch.int64), 0
    for part_JC in parts:
        into_J = torch.arange(len(part_JC))
        if cut_sure and stream.sure_loss > 0:
            parent_J, loss_J = agglomerate(part_JC, torch.ones(len(part_JC)))
            left = int((loss_J > stream.sure_loss).sum())
            into_J = cut_groups(parent_J[None], loss_J[None], left)[1][0]
        left = int(into_J.max()) + 1
        sum_JC = torch.zeros(left, part_JC.shape[1]).index_add_(0, into_J, part_JC)
        at = torch.cat((at, into_J + stream.num_alive))
        moved = stream.add(sum_JC, torch.bincount(into_J))
        at = at if moved is None else moved[at]
        most = max(most, stream.num_alive + left)
    moved = stream.finish()
    return at if moved is None else moved[at], stream, most


@pytest.mark.parametrize("cut_sure", [False, True])
def test_near_one_tree_over_everything(cut_sure: bool) -> None:
    parts = chunks(10)
    whole_NC = torch.cat(parts)
    at_N, stream, most = streamed(parts, cut_sure)
    assert stream.num_alive == WANTED
    assert most <= (1 + SLACK) * WANTED + 80
    sums = torch.zeros(WANTED, whole_NC.shape[1]).index_add_(0, at_N, whole_NC)
    torch.testing.assert_close(stream.sums, sums, rtol=0, atol=1e-4)
    parent_N, loss_N = agglomerate(whole_NC, torch.ones(len(whole_NC)))
    at_once_1N = cut_groups(parent_N[None], loss_N[None], WANTED)[1]
    best = torch.zeros_like(sums).index_add_(0, at_once_1N[0], whole_NC)
    fidelity, at_best = (float(total.norm(dim=1).sum()) / len(whole_NC) for total in (sums, best))
    assert fidelity > at_best - 0.01


def test_equal_chunks_give_equal_bits() -> None:
    first, second = streamed(chunks(9)), streamed(chunks(9))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].sums, second[1].sums)


def test_what_is_less_than_wanted_stays() -> None:
    stream = TreeStream(WANTED)
    assert stream.add(torch.eye(5), torch.ones(5)) is None
    assert stream.finish() is None
    assert (stream.num_alive, stream.sure_loss) == (5, 0.0)
    assert len(stream.tree()[0]) == 5
    with pytest.raises(MergeError, match="no tokens yet"):
        _ = TreeStream(3).sums
    with pytest.raises(MergeError, match="at least 1 token, got 0"):
        TreeStream(0)
