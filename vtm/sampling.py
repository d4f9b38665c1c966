"""What is drawn for a clip, reproducibly: noise from its seed, and a low-discrepancy order of its tokens.

Letters: B batch, N tokens, M targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vtm.errors import MergeError
from vtm.plan import Grid, token_positions
from vtm.upload import to_device

PHASE_BITS = 32
PHASE_STEPS_THW = (3518319155, 2882110345, 2360945575)
"""2^32 over the first three powers of the root of x^4 = x + 1: the additive recurrence with the evenest steps in three
dimensions, held as integers so that the order is the same on every device."""


def gumbel_noise(seeds: Sequence[int], num_tokens: int, device: torch.device | str = "cpu") -> Tensor:
    """Standard Gumbel noise for the tokens of each clip.

    Drawn on the CPU, so that a seed gives the same noise whatever the device.

    Args:
        seeds: one for each clip of the batch.
        num_tokens: N.
        device: where the noise is to be.

    Returns:
        (B, N) float32.

    Raises:
        MergeError: a seed is negative or 2^64 or more.
    """
    noise_BN = torch.empty(len(seeds), num_tokens)
    for noise_N, seed in zip(noise_BN, seeds, strict=True):
        torch.rand(num_tokens, generator=_generator(seed), out=noise_N)
    # A float32 draw is a multiple of 2^-24, and may be 0: half a step more keeps both logarithms finite.
    return to_device(noise_BN.add_(2.0**-25).log_().neg_().log_().neg_(), device)


def sampled_targets(scores_BN: Tensor, num_targets: int, noise_BN: Tensor) -> Tensor:
    """Draw targets without replacement with probability softmax(scores): Gumbel-top-k (equation 6, sections 3.3, 3.4).

    Args:
        scores_BN: (B, N) motion magnitudes or saliencies; no gradient passes.
        num_targets: M.
        noise_BN: (B, N) standard Gumbel noise.

    Returns:
        (B, M) int64, increasing.
    """
    return highest(scores_BN.detach().float() + noise_BN, num_targets)


def highest(ranking_BN: Tensor, count: int) -> Tensor:
    """Positions of the highest values, the first of equals.

    Args:
        ranking_BN: (B, N), any dtype with an order.
        count: at most N.

    Returns:
        (B, count) int64, increasing.
    """
    return ranking_BN.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values


def even_ranking(grid: Grid, seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Rank the tokens so that those of any number of highest ranks lie evenly over frames, rows and columns.

    The rank is a phase that advances by an irrational step a frame, a row and a column: no stride for a grid to alias
    with, and fewer tokens are a subset of more. The seed shifts the phase.

    Args:
        grid: T, H, W.
        seeds: one for each clip of the batch.
        device: where the ranking is to be.

    Returns:
        (B, T·H·W) int64 in [0, 2^32).

    Raises:
        MergeError: a seed is negative or 2^64 or more.
    """
    shifts = [int(torch.randint(1 << PHASE_BITS, (1,), generator=_generator(seed))) for seed in seeds]
    shift_B1 = torch.tensor(shifts, dtype=torch.int64)[:, None]
    return (phases(grid, device) + to_device(shift_B1, device)) % (1 << PHASE_BITS)


def phases(grid: Grid, device: torch.device | str = "cpu") -> Tensor:
    """The additive recurrence that `even_ranking` shifts.

    Args:
        grid: T, H, W.
        device: where the phases are to be.

    Returns:
        (T·H·W,) int64 in [0, 2^32); those below any bound lie evenly over frames, rows and columns.
    """
    t_N, y_N, x_N = token_positions(grid, device).unbind(dim=1)
    step_t, step_y, step_x = PHASE_STEPS_THW
    return (t_N * step_t + y_N * step_y + x_N * step_x) % (1 << PHASE_BITS)


def _generator(seed: int) -> torch.Generator:
    if not 0 <= seed < 1 << 64:
        raise MergeError(f"a seed is a whole number from 0 to 2^64 - 1, got {seed}")
    return torch.Generator().manual_seed(seed)
