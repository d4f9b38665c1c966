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

    Tokens lie in a row, the denser ones first, each as long as it is dense; `count` marks at equal distances are hit.
    """
    frames, rows, columns = grid
    share = Fraction(1, 2) if strategy == "center" else Fraction(math.sqrt(0.75))
    lengths = []
    for i in range(frames * rows * columns):
        y, x = i // columns % rows, i % columns
        inner = overlap(y, rows, share) * overlap(x, columns, share)
        in_area = inner if strategy == "center" else 1 - inner
        lengths.append(Fraction(round(64 * (1 + 2 * in_area))))
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    step, start, chosen = sum(lengths) / count, Fraction(0), []
    assert max(lengths) <= step
    for i in order:
        if math.ceil(start / step) * step < start + lengths[i]:
            chosen.append(i)
        start += lengths[i]
    return sorted(chosen)


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
