"""The order of a row's tokens: by centre time, then y, then x; ties keep the order they have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def center_order(
    group_N: NDArray[np.integer], num_groups: int, grid_thw: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Where tokens lie, and their order.

    Args:
        group_N: (N,) in [0, M): the token of each source patch, in t, y, x order.
        num_groups: M, none of them empty.
        grid_thw: T, H, W with T·H·W = N.

    Returns:
        (M, 3) float32 mean t, y, x of each token's patches in patch units, from sums of whole numbers; and (M,) int64,
        the token that comes at each place. The centres are not in that order yet.
    """
    _, rows, columns = grid_thw
    index_N = np.arange(len(group_N))
    axes = (index_N // (rows * columns), index_N // columns % rows, index_N % columns)
    totals = [np.bincount(group_N, weights=axis, minlength=num_groups) for axis in axes]
    sizes_M = np.bincount(group_N, minlength=num_groups)
    centers_M3 = (np.stack(totals, axis=1) / sizes_M[:, None]).astype(np.float32)
    return centers_M3, np.lexsort((centers_M3[:, 2], centers_M3[:, 1], centers_M3[:, 0]))
