"""Size-weighted MaxSim: how much of a query a clip has tokens for (late interaction; Khattab and Zaharia 2020).

    score = Σ_q w_q · max_m cos(q, m)

where w_q is the share of the query's patches that token q represents. Letters: Q query tokens, M tokens of a clip,
C clips, F frames of a query, T frames of a clip, P patches of a frame, D channels. All tokens have unit norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def maxsim_scores(tokens_QD: Tensor, weights_Q: Tensor, clips: Sequence[Tensor]) -> Tensor:
    """Size-weighted MaxSim of a query and each clip.

    Args:
        tokens_QD: float32, of unit norm.
        weights_Q: float32, sums to 1.
        clips: (M, D) each, of unit norm, in any float dtype; M differs from clip to clip.

    Returns:
        (C,) float32 in [-1, 1].
    """
    if not clips:
        return tokens_QD.new_zeros(0)
    similar_QM = tokens_QD @ torch.cat(list(clips)).float().T
    parts = torch.split(similar_QM, [len(clip) for clip in clips], dim=1)
    best_QC = torch.stack([part.amax(dim=1) for part in parts], dim=1)
    return weights_Q @ best_QC


def frame_scores(frames_FPD: Tensor, tokens_MD: Tensor, group_TP: Tensor) -> Tensor:
    """How much each frame of a clip looks like any frame of the query, patch by patch.

    Each patch of the clip is represented by the token that the group map names: no unmerged token is needed.

    Args:
        frames_FPD: float32, of unit norm: the query's patches in y, x order.
        tokens_MD: float32, of unit norm.
        group_TP: int64, the token of each patch of the clip.

    Returns:
        (T,) float32: mean cosine of patches at the same place, of the query's frame that fits best.
    """
    similar_FPM = frames_FPD @ tokens_MD.T
    index_FPT = group_TP.T[None].expand(len(frames_FPD), -1, -1)
    return similar_FPM.gather(2, index_FPT).mean(dim=1).amax(dim=0)
