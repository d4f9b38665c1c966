"""Lloyd steps: groups made anew around their own means, where nothing has to be nested any more.

Cuts of a merge tree are nested, so what merged early stays together however few groups are left. A step lets every
token join the group whose mean direction is nearest (Lloyd, 1982; here by cosine, as spherical k-means).

Letters: J tokens, M groups, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vtm.matching import nearest_directions
from vtm.segments import scattered_sum


@torch.no_grad()
def lloyd_groups(sum_JD: Tensor, group_J: Tensor, num_groups: int, steps: int) -> Tensor:
    """Group tokens anew so that more of their cosine is kept.

    With S_j the sum of the unit tokens that j represents, each step raises Σ_g |Σ_{j in g} S_j|, the summed cosine to
    the groups' mean directions, or leaves it as it is.

    Args:
        sum_JD: (J, D) float32 S_j, on a CPU.
        group_J: (J,) int64 in [0, num_groups), no group empty.
        num_groups: M.
        steps: at most so many; fewer where one changes nothing.

    Returns:
        (J,) int64 in [0, num_groups), no group empty.
    """
    length_J = torch.linalg.vector_norm(sum_JD, dim=1)
    for _ in range(steps):
        direction_MD = F.normalize(scattered_sum(sum_JD, group_J, num_groups), dim=1)
        nearest_1J, cosine_1J = nearest_directions(sum_JD[None], direction_MD[None])
        nearest_J = _without_empty(nearest_1J[0], length_J * (1 - cosine_1J[0]), num_groups)
        if torch.equal(nearest_J, group_J):
            break
        group_J = nearest_J
    return group_J


def _without_empty(group_J: Tensor, lack_J: Tensor, num_groups: int) -> Tensor:
    """Give each empty group the token that loses most by its own group, which must not be the last one there."""
    counts = torch.bincount(group_J, minlength=num_groups)
    empty = (counts == 0).nonzero()[:, 0].tolist()
    if not empty:
        return group_J
    group_J, left = group_J.clone(), counts.tolist()
    for token in lack_J.argsort(descending=True, stable=True).tolist():
        old = int(group_J[token])
        if left[old] > 1:
            left[old] -= 1
            group_J[token] = empty.pop(0)
        if not empty:
            break
    return group_J
