"""The merge step of the paper (section 3.1), written out token by token in float64: slow, literal, and independent."""

from __future__ import annotations

import math

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


def literal_targets(strategy: str, grid: tuple[int, int, int], partition_factor: int) -> list[int]:
    """The targets of naive (equation 1), and of center and boundary as factors γ/2 and 3γ/2 (section 3.3)."""
    frames, rows, columns = grid
    height, width = rows // 2, columns // 2
    top, left = (rows - height) // 2, (columns - width) // 2
    chosen = []
    for i in range(frames * rows * columns):
        y, x = i // columns % rows, i % columns
        central = top <= y < top + height and left <= x < left + width
        edge = y in (0, rows - 1) or x in (0, columns - 1)
        dense = {"naive": None, "center": central, "boundary": edge}[strategy]
        factor = partition_factor if dense is None else partition_factor // 2 if dense else 3 * partition_factor // 2
        if i % factor == 0:
            chosen.append(i)
    return chosen


def groups_of(group_N: Tensor) -> list[list[int]]:
    """Members of each group of one row of a plan."""
    members: list[list[int]] = [[] for _ in range(int(group_N.max()) + 1)]
    for i, g in enumerate(group_N.tolist()):
        members[g].append(i)
    return members
