import math

import pytest
import torch

from vtm import MergeError, token_motion

GRID = (4, 3, 5)
TOKENS = 60
ROUNDING = 1e-6


def test_it_is_the_mean_absolute_difference_to_the_frame_before_over_the_clips_mean():
    x_BNC = torch.randn(2, TOKENS, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    motion_BN = token_motion(x_BNC, GRID)
    for b in range(2):
        x = x_BNC[b].tolist()
        change = [sum(abs(p - q) for p, q in zip(x[i], x[i - 15], strict=True)) / 7 for i in range(15, TOKENS)]
        literal = change[:15] + change
        mean = sum(literal) / TOKENS
        assert motion_BN[b].tolist() == pytest.approx([math.log1p(value / mean) for value in literal], abs=ROUNDING)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_what_changes_stands_out_whatever_the_scale(dtype):
    x_BNC = torch.ones(1, TOKENS, 7)
    x_BNC[0, 2 * 15 + 4] = 9
    small_BN, large_BN = (token_motion((scale * x_BNC).to(dtype), GRID) for scale in (0.125, 64))
    assert small_BN.dtype == torch.float32
    assert torch.equal(small_BN, large_BN)
    # It comes in frame 2 and is gone in frame 3.
    assert small_BN[0].nonzero().flatten().tolist() == [2 * 15 + 4, 3 * 15 + 4]


def test_sparse_motion_does_not_take_all_targets():
    """One token in a thousand changes: by equation 6 it gets no more than half of the draw, not every target."""
    x_BNC = torch.ones(1, 2 * 4000, 3)
    x_BNC[0, 4000:4008] = 2
    share_N = token_motion(x_BNC, (2, 40, 100)).softmax(dim=1)[0]
    moving = share_N[:8].sum() + share_N[4000:4008].sum()
    assert 0.45 < moving < 0.55


def test_still_and_single_frames_do_not_move():
    assert token_motion(torch.ones(2, TOKENS, 7), GRID).tolist() == [[0.0] * TOKENS] * 2
    assert token_motion(torch.rand(2, 15, 7), (1, 3, 5)).tolist() == [[0.0] * 15] * 2


def test_a_grid_of_other_tokens_is_an_error():
    with pytest.raises(MergeError, match=r"\(4, 3, 4\)"):
        token_motion(torch.ones(2, TOKENS, 7), (4, 3, 4))
