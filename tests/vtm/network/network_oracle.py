"""The paper's equations 3 to 10, token by token in Python's own float64; slow, and as literal as they are printed."""

from __future__ import annotations

import math

Vector = list[float]
Matrix = list[Vector]


def times(x: Matrix, u: Matrix) -> Matrix:
    return [[sum(row[c] * u[c][d] for c in range(len(u))) for d in range(len(u[0]))] for row in x]


def layer_norm(x: Matrix, weight: Vector, bias: Vector) -> Matrix:
    normed = []
    for row in x:
        mean = sum(row) / len(row)
        variance = sum((value - mean) ** 2 for value in row) / len(row)
        normed.append(
            [(v - mean) / math.sqrt(variance + 1e-5) * w + b for v, w, b in zip(row, weight, bias, strict=True)]
        )
    return normed


def softmax(logits: Vector) -> Vector:
    exponentials = [math.exp(value) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def attention(q: Matrix, k: Matrix, v: Matrix, divisor: float, saliency: Vector | None = None) -> Matrix:
    """Equation 8; with a saliency equation 10."""
    out = []
    for q_i in q:
        logits = [sum(a * b for a, b in zip(q_i, k_j, strict=True)) for k_j in k]
        if saliency is not None:
            logits = [value + s_j for value, s_j in zip(logits, saliency, strict=True)]
        share = softmax([value / divisor for value in logits])
        out.append([sum(share[j] * v[j][d] for j in range(len(v))) for d in range(len(v[0]))])
    return out


def saliency(k: Matrix, u_s: Matrix) -> Vector:
    """Equation 9."""
    return [math.tanh(row[0]) for row in times(k, u_s)]


def cosine(a: Vector, b: Vector) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def groups(keys: Matrix, targets: list[int], merge_share: float) -> list[list[int]]:
    """Equations 3 and 5: the members of each group, target first, ordered by the position of the group's own token."""
    sources = [i for i in range(len(keys)) if i not in targets]
    nearest = {j: max(targets, key=lambda i: cosine(keys[i], keys[j])) for j in sources}
    limit = math.floor(merge_share * len(sources) + 1e-9)
    ranked = sorted(sources, key=lambda j: -cosine(keys[nearest[j]], keys[j]))
    own = sorted(targets + ranked[limit:])
    return [[i] + [j for j in sorted(ranked[:limit]) if nearest[j] == i] for i in own]


def merged(x: Matrix, members: list[list[int]]) -> Matrix:
    """Equation 4."""
    return [[sum(x[j][d] for j in group) / len(group) for d in range(len(x[0]))] for group in members]


def linear_gelu(x: Matrix, weight: Matrix, bias: Vector) -> Matrix:
    out = times(x, weight)
    return [[0.5 * y * (1 + math.erf(y / math.sqrt(2))) for y in map(sum, zip(row, bias, strict=True))] for row in out]
