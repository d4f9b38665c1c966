"""Motion of tokens, where no codec's is at hand: token caches hold none, and a trained network may still go by it.

Letters: B clips, T frames, P patches of a frame, N = T·P tokens, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.errors import MergeError
from vtm.finite import check_finite
from vtm.plan import Grid

LEAST_MEAN = 1e-6
"""What the changes of a clip in which nothing changes are divided by."""


@torch.no_grad()
def token_motion(x_BNC: Tensor, grid: Grid) -> Tensor:
    """How much each token differs from the one at its place a frame before: v_i of equation 6, without a codec.

    log(1 + change / mean change of the clip), change being the mean absolute difference over the channels. The softmax
    of equation 6 then draws a token in proportion to 1 + its change over the mean: whatever the encoder's scale, and
    where only one token in a thousand changes, no more than half of the draw goes to such tokens. It takes the place of
    the magnitude of a motion vector: it is high where something appears or changes its looks as well as where it moves,
    and a cut is motion everywhere. Tokens that were merged in time and spread back do not move.

    Args:
        x_BNC: (B, N, C) tokens in t, y, x order, any float dtype.
        grid: T, H, W with T·H·W = N.

    Returns:
        (B, N) float32, not negative, without gradient; the first frame has the motion of the second, and a clip of one
        frame, or in which nothing changes, has none.

    Raises:
        MergeError: the grid does not hold N tokens; or, on a CPU, some values are not finite.
    """
    if x_BNC.dim() != 3 or x_BNC.shape[1] != grid[0] * grid[1] * grid[2]:
        raise MergeError(f"grid {tuple(grid)} does not hold tokens of shape {tuple(x_BNC.shape)}")
    check_finite("tokens", x_BNC)
    if grid[0] == 1:
        return torch.zeros(x_BNC.shape[:2], device=x_BNC.device)
    x_BTPC = x_BNC.float().unflatten(1, (grid[0], -1))  # type: ignore[no-untyped-call]
    change_BTP = x_BTPC.diff(dim=1).abs().mean(dim=3)
    change_BN = torch.cat((change_BTP[:, :1], change_BTP), dim=1).flatten(1)
    return torch.log1p(change_BN / change_BN.mean(dim=1, keepdim=True).clamp_min(LEAST_MEAN))
