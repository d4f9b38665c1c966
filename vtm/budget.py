"""How far a merge goes: a share, a number or the paper's γ and R, turned into counts of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vtm.errors import MergeError

ROUNDING = 1e-9
"""Tolerance of shares, which are decimals: 0.29 · 100 is 29, though its float is a little less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How far a merge goes; exactly one of the first three is given.

    Raises:
        MergeError: more or less than one of them is given, or a value is out of range.
    """

    partition_factor: int | None = None
    """γ: ceil(N / γ) tokens are targets (the paper's equation 1)."""
    keep: float | None = None
    """Share of tokens left, above 0 and at most 1: ceil(keep · N) of them."""
    num_tokens: int | None = None
    """Number of tokens left, at least 1; a clip of no more tokens is not merged."""
    merge_share: float = 1.0
    """R as a share of the sources: only the floor(merge_share · |S|) most similar ones merge (equation 5)."""
    window_frames: int | None = None
    """Merge within windows of that many frames (the paper's L_i), the last one shorter where they do not divide the
    clip; across the whole clip by default."""

    def __post_init__(self) -> None:
        counts = {"partition_factor": self.partition_factor, "num_tokens": self.num_tokens}
        given = [name for name, value in {**counts, "keep": self.keep}.items() if value is not None]
        if len(given) != 1:
            raise MergeError(f"give one of partition_factor, keep and num_tokens, got {' and '.join(given) or 'none'}")
        for name, value in counts.items():
            if value is not None and (not hasattr(value, "__index__") or value < 1):
                raise MergeError(f"{name} is a whole number of at least 1, got {value!r}")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise MergeError(f"keep is the share of tokens left, above 0 and at most 1, got {self.keep}")
        check_merge(self.merge_share, self.window_frames)

    @property
    def stride(self) -> int | None:
        """γ, where the targets are to be every γ-th token; a share 1 / γ says the same as γ."""
        if self.partition_factor is not None or self.keep is None or self.merge_share < 1:
            return self.partition_factor
        stride = round(1 / self.keep)
        return stride if abs(1 / self.keep - stride) < ROUNDING else None

    def targets(self, total: int) -> int:
        """How many of `total` tokens are targets (equations 1 and 2).

        Args:
            total: N, at least 1.

        Returns:
            M, from 1 to N.

        Raises:
            MergeError: so small a share of the sources merges that more tokens are left than asked for.
        """
        if self.stride is not None:
            return math.ceil(total / self.stride)
        return targets_that_leave(self.left(total), total, self.merge_share)

    def left(self, total: int) -> int:
        """How many of `total` tokens a merge leaves.

        Args:
            total: N, at least 1.
        """
        if self.partition_factor is not None:
            sources = total - math.ceil(total / self.partition_factor)
            return total - num_merged(sources, self.merge_share)
        if self.keep is not None:
            return max(1, math.ceil(total * self.keep - ROUNDING))
        return min(self.num_tokens or total, total)

    def of_windows(self, tokens: Sequence[int]) -> list[Budget]:
        """The budget of each window of a clip. A share or a number of tokens holds for the whole clip, exactly.

        Args:
            tokens: of each window: all alike, but for the last, which may have fewer.

        Returns:
            Budgets without windows. The last window has its part, rounded down; of the others the first have one token
            more where the rest does not divide.

        Raises:
            MergeError: fewer tokens are to be left than there are windows.
        """
        if self.partition_factor is not None:
            return [replace(self, window_frames=None)] * len(tokens)
        total = sum(tokens)
        left = self.left(total)
        if left < len(tokens):
            raise MergeError(f"{left} tokens cannot be left of {len(tokens)} windows: ask for one a window at least")
        last = left if len(tokens) == 1 else max(1, left * tokens[-1] // total)
        each, more = divmod(left - last, max(1, len(tokens) - 1))
        counts = [each + 1] * more + [each] * (len(tokens) - 1 - more) + [last]
        return [replace(self, keep=None, num_tokens=count, window_frames=None) for count in counts]


def check_merge(merge_share: float, window_frames: int | None) -> None:
    """Check the two settings that every strategy takes, even `none`.

    Raises:
        MergeError: a value is out of range.
    """
    if not 0 <= merge_share <= 1:
        raise MergeError(f"merge_share is R as a share of the sources, from 0 to 1, got {merge_share}")
    if window_frames is not None and (not hasattr(window_frames, "__index__") or window_frames < 1):
        raise MergeError(f"window_frames is a whole number of at least 1, got {window_frames!r}")


def num_merged(num_sources: int, merge_share: float) -> int:
    """R of equation 5: floor(merge_share · |S|).

    Args:
        num_sources: |S|.
        merge_share: from 0 to 1; 0.29 of 100 is 29, not 28.
    """
    return math.floor(num_sources * merge_share + ROUNDING)


def targets_that_leave(left: int, total: int, merge_share: float) -> int:
    """The fewest targets that leave `left` of `total` tokens when R of the sources merge (equation 5).

    Args:
        left: from 1 to `total`.
        total: N.
        merge_share: R as a share of the sources, from 0 to 1.

    Returns:
        M, from 1 to `left`.

    Raises:
        MergeError: no number of targets does: too few sources merge.
    """
    low, high = 1, left
    while low < high:
        middle = (low + high) // 2
        if total - num_merged(total - middle, merge_share) >= left:
            high = middle
        else:
            low = middle + 1
    if total - num_merged(total - low, merge_share) != left:
        raise MergeError(
            f"merging {merge_share} of the sources cannot leave {left} of {total} tokens in one round: "
            "raise merge_share, or keep more tokens"
        )
    return low
