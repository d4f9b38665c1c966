"""The two scores, against loops that say what they mean."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from pipeline.search.maxsim import frame_scores, maxsim_scores


def directions(*shape: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_maxsim_weights_each_query_token_by_its_best_match() -> None:
    query_QD, weights_Q = directions(5, 7, seed=1), torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25])
    clips = [directions(m, 7, seed=m) for m in (3, 1, 11)]
    expected = [
        sum(float(w) * max(float(q @ token) for token in clip) for q, w in zip(query_QD, weights_Q, strict=True))
        for clip in clips
    ]
    torch.testing.assert_close(maxsim_scores(query_QD, weights_Q, clips), torch.tensor(expected))
    assert maxsim_scores(query_QD, weights_Q, []).shape == (0,)


def test_a_frame_scores_by_the_tokens_at_the_same_places() -> None:
    frames_FPD, tokens_MD = directions(2, 3, 7, seed=4), directions(5, 7, seed=6)
    group_TP = torch.tensor([[0, 1, 2], [4, 4, 1], [3, 0, 0], [2, 2, 2]])
    expected = [
        max(sum(float(frame[p] @ tokens_MD[group[p]]) for p in range(3)) / 3 for frame in frames_FPD)
        for group in group_TP
    ]
    torch.testing.assert_close(frame_scores(frames_FPD, tokens_MD, group_TP), torch.tensor(expected))


def test_the_frame_itself_scores_best() -> None:
    tokens_MD = directions(12, 7, seed=8)
    group_TP = torch.arange(12).reshape(4, 3)
    assert int(frame_scores(tokens_MD[group_TP[2]][None], tokens_MD, group_TP).argmax()) == 2
