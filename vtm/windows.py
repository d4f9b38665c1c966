"""A clip's tokens cut into windows of frames, before and after merging, and the windows' plans as one.

Windows of equal shape lie side by side in one batch. Where they do not divide the clip, a shorter one is left at the
end. Letters: B clips, W windows of a run, N tokens of a clip, n tokens and m groups of a window, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtm.plan import Grid, MergePlan


@dataclass(frozen=True, slots=True)
class WindowRun:
    """Consecutive windows of equal numbers of tokens, which merge as one batch."""

    windows: int
    """W."""
    tokens: int
    """n of each window."""


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """The windows of a clip in order of time: N is the sum of W · n over the runs."""

    runs: tuple[WindowRun, ...]

    def split(self, x_BN: Tensor) -> list[Tensor]:
        """Cut a clip's tokens, (B, N, …), into the windows of each run, (B·W, n, …)."""
        parts, start = [], 0
        for run in self.runs:
            end = start + run.windows * run.tokens
            parts.append(x_BN[:, start:end].reshape(len(x_BN) * run.windows, run.tokens, *x_BN.shape[2:]))
            start = end
        return parts

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Put windows back in order: the inverse of `split`, whatever number of tokens each part has now.

        Args:
            parts: (B·W, m, …), one a run.

        Returns:
            (B, sum of W·m, …).
        """
        rows = [
            part.reshape(len(part) // run.windows, run.windows * part.shape[1], *part.shape[2:])
            for run, part in zip(self.runs, parts, strict=True)
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def join_plans(self, plans: Sequence[MergePlan]) -> MergePlan:
        """One plan over the clip's N tokens from the plans of its windows.

        Args:
            plans: one a run, each over the B·W windows that `split` makes.

        Returns:
            Its groups are in the order of the windows.
        """
        return MergePlan.cat([plan.tile(run.windows) for run, plan in zip(self.runs, plans, strict=True)], dim=1)

    def grown(self, parts: Sequence[Tensor], times: int) -> WindowLayout:
        """The layout of windows that hold `times` windows of this layout each.

        Args:
            parts: what the windows have become, one a run, (B·W, m, …).
            times: windows of this layout in one of the next.
        """
        counts = [run.windows for run in self.runs]
        sizes = [part.shape[1] for part in parts]
        tokens = [size for count, size in zip(counts, sizes, strict=True) for _ in range(count)]
        return layout_of([sum(tokens[start : start + times]) for start in range(0, len(tokens), times)])


def layout_of(tokens: Sequence[int]) -> WindowLayout:
    """The layout of windows of so many tokens each, in order of time; equal neighbours are one run."""
    runs: list[WindowRun] = []
    for size in tokens:
        if runs and runs[-1].tokens == size:
            runs[-1] = WindowRun(runs[-1].windows + 1, size)
        else:
            runs.append(WindowRun(1, size))
    return WindowLayout(tuple(runs))


def window_tokens(grid: Grid, window_frames: int) -> list[int]:
    """Tokens of each window of an unmerged clip; the last one has fewer where windows do not divide its frames."""
    frames, rows, columns = grid
    return [min(window_frames, frames - start) * rows * columns for start in range(0, frames, window_frames)]
