"""The 5th percentile of cosines: one token in twenty is represented worse."""

from __future__ import annotations

from torch import Tensor


def low_cosine(cosine_K: Tensor) -> float:
    """The cosine at rank round(K / 20), counted from the lowest as 1, at least the lowest."""
    return float(cosine_K.kthvalue(max(1, round(0.05 * len(cosine_K)))).values)
