"""A clip's tokens cut into windows of frames, before and after merging.

Windows hold equal numbers of tokens, so one batch takes them all; where the clip's frames are no multiple of the
window's, a shorter window is left at the end.

Letters: B clips, N tokens of a clip, G full windows of a clip, n tokens of a full window, r of the last, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtm.plan import Grid, MergePlan


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """How many windows a clip has, and how many tokens each: N = full · tokens + rest."""

    full: int
    """G."""
    tokens: int
    """n."""
    rest: int
    """r, 0 where the windows fill the clip."""

    def split(self, x_BNC: Tensor) -> list[Tensor]:
        """The full windows, (B·G, n, C), and the last, (B, r, C); either is left out where there is none."""
        batch = len(x_BNC)
        split_at = self.full * self.tokens
        parts = []
        if self.full:
            parts.append(x_BNC[:, :split_at].reshape(batch * self.full, self.tokens, *x_BNC.shape[2:]))
        if self.rest:
            parts.append(x_BNC[:, split_at:])
        return parts

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Put windows back in order: the inverse of `split`, whatever number of tokens each part has now.

        Args:
            parts: (B·G, m, …) and (B, s, …), those that `split` returned.

        Returns:
            (B, G·m + s, …).
        """
        rest = parts[-1] if self.rest else None
        if not self.full:
            return parts[-1]
        full = parts[0].reshape(-1, self.full * parts[0].shape[1], *parts[0].shape[2:])
        return full if rest is None else torch.cat((full, rest), dim=1)

    def join_plans(self, plans: Sequence[MergePlan]) -> MergePlan:
        """One plan over the clip's N tokens from the plans of its windows.

        Args:
            plans: one for each part that `split` returns.
        """
        groups, targets = [], []
        first_group = first_token = 0
        for plan, windows in zip(plans, self._windows_of_parts(), strict=True):
            index_G1 = torch.arange(windows, device=plan.group.device)[:, None]
            group_BGn = plan.group.view(-1, windows, plan.group.shape[1]) + (first_group + index_G1 * plan.num_groups)
            target_BGm = plan.targets.view(-1, windows, plan.num_groups) + (
                first_token + index_G1 * plan.group.shape[1]
            )
            groups.append(group_BGn.flatten(1))
            targets.append(target_BGm.flatten(1))
            first_group += windows * plan.num_groups
            first_token += windows * plan.group.shape[1]
        return MergePlan(group=torch.cat(groups, dim=1), num_groups=first_group, targets=torch.cat(targets, dim=1))

    def next(self, parts: Sequence[Tensor], windows: int) -> WindowLayout:
        """The layout of the next block, whose windows are `windows` of these long.

        Args:
            parts: what this block made of the windows, in the order of `split`.
            windows: frames of the next window over frames of this one.
        """
        tokens = parts[0].shape[1] if self.full else 0
        rest = parts[-1].shape[1] if self.rest else 0
        return WindowLayout(self.full // windows, windows * tokens, self.full % windows * tokens + rest)

    def _windows_of_parts(self) -> list[int]:
        return [self.full] * (self.full > 0) + [1] * (self.rest > 0)


def first_layout(grid: Grid, window_frames: int) -> WindowLayout:
    """The layout of a clip of unmerged tokens.

    Args:
        grid: T, H, W.
        window_frames: L_1.
    """
    frames, rows, columns = grid
    patches = rows * columns
    return WindowLayout(frames // window_frames, window_frames * patches, frames % window_frames * patches)
