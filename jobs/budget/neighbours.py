"""Whether merged tokens find the frames that unmerged tokens find.

Letters: T frames of a clip, P patches of a frame, D channels, F frames of all clips.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

APART_S = 5.0
"""A frame's neighbours are looked for at least so far from it: those beside it are always like it."""
SAME_S = 1.0
"""A neighbour this near to the other is the same."""


def frame_directions(tokens_ND: Tensor, num_frames: int) -> Tensor:
    """(T, D) unit norm: the mean direction of what represents each frame's patches, N = T * P in t, y, x order."""
    directions_TPD = normalize(tokens_ND.float(), dim=1).reshape(num_frames, -1, tokens_ND.shape[1])
    return normalize(directions_TPD.mean(dim=1), dim=1).cpu()


def nearest_frames(frames_FD: Tensor, video_F: NDArray[np.int64], time_F: NDArray[np.float64]) -> NDArray[np.int64]:
    """The most similar frame of each, of another video or APART_S away; -1 where there is none."""
    similar_FF = (frames_FD @ frames_FD.T).numpy()
    near_FF = (video_F[:, None] == video_F) & (np.abs(time_F[:, None] - time_F) < APART_S)
    similar_FF[near_FF] = -np.inf
    nearest_F: NDArray[np.int64] = similar_FF.argmax(axis=1)
    return np.where(near_FF.all(axis=1), -1, nearest_F)


def agreement(
    one_F: NDArray[np.int64], other_F: NDArray[np.int64], video_F: NDArray[np.int64], time_F: NDArray[np.float64]
) -> float | None:
    """Share of frames whose neighbour is the same frame, or one within SAME_S of it; None where no frame has any."""
    has_any_F = (one_F >= 0) & (other_F >= 0)
    if not has_any_F.any():
        return None
    one_F, other_F = one_F[has_any_F], other_F[has_any_F]
    is_near_F = np.abs(time_F[one_F] - time_F[other_F]) <= SAME_S
    return float(((video_F[one_F] == video_F[other_F]) & is_near_F).mean())
