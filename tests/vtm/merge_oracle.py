"""The merge step of the paper (section 3.1), written out token by token in float64: slow, literal, and independent."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor


def merge_literally(keys_ND: Tensor, x_NC: Tensor, targets: list[int], merged: int) -> tuple[list[list[int]], Tensor]:
    """Equations 3 to 5 for one clip: the members of each group, by the position of its target, and their means."""
    keys, x = keys_ND.double().tolist(), x_NC.double().tolist()
    sources = [j for j in range(len(keys)) if j not in targets]
    nearest = {}
    for j in sources:
        cosines = [cosine(keys[i], keys[j]) for i in targets]
        best = max(cosines)
        nearest[j] = (targets[cosines.index(best)], best)
    ranked = sorted(sources, key=lambda j: (-nearest[j][1], j))
    members = {i: [i] for i in targets}
    for j in ranked[:merged]:
        members[nearest[j][0]].append(j)
    for j in ranked[merged:]:
        members[j] = [j]
    groups = [sorted(members[own]) for own in sorted(members)]
    means = [[sum(x[i][c] for i in group) / len(group) for c in range(len(x[0]))] for group in groups]
    return groups, torch.tensor(means, dtype=torch.float64)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    return dot / math.sqrt(sum(p * p for p in a)) / math.sqrt(sum(q * q for q in b))


def literal_targets(strategy: str, grid: tuple[int, int, int], count: int) -> list[int]:
    """The targets of center and boundary: three times as dense in a quarter of the picture as in the rest.

    Each token has a phase, a multiple of an irrational number a frame, row and column; as the density of targets grows
    from nothing, a token is a target from the density on that is its phase over its own share of it.
    """
    frames, rows, columns = grid
    share = Fraction(1, 2) if strategy == "center" else Fraction(math.sqrt(0.75))
    root = 1.2207440846057596  # x^4 = x + 1
    steps = [round(2**32 / root**power) for power in (1, 2, 3)]
    from_density_on = []
    for i in range(frames * rows * columns):
        t, y, x = i // (rows * columns), i // columns % rows, i % columns
        inner = overlap(y, rows, share) * overlap(x, columns, share)
        in_area = inner if strategy == "center" else 1 - inner
        phase = (t * steps[0] + y * steps[1] + x * steps[2]) % 2**32
        from_density_on.append((192 * phase // round(64 * (1 + 2 * in_area)), i))
    return sorted(i for _, i in sorted(from_density_on)[:count])


def overlap(place: int, side: int, share: Fraction) -> Fraction:
    """How much of the patch from `place` to `place + 1` the middle share of a side covers."""
    first, last = side * (1 - share) / 2, side * (1 + share) / 2
    return max(Fraction(0), min(Fraction(place + 1), last) - max(Fraction(place), first))


def groups_of(group_N: Tensor) -> list[list[int]]:
    """Members of each group of one row of a plan."""
    members: list[list[int]] = [[] for _ in range(int(group_N.max()) + 1)]
    for i, g in enumerate(group_N.tolist()):
        members[g].append(i)
    return members
