"""A clip merged window by window: which frames go together, and how the windows' plans become the clip's.

Letters: B clips, W windows of equal shape, N tokens of the clip, n tokens and m groups of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vtm.budget import Budget
from vtm.plan import Grid, MergeError, MergePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRun:
    """Consecutive windows of equal shape and budget, which merge as one batch."""

    start_frame: int
    windows: int
    """W."""
    frames: int
    """Frames of each window."""
    budget: Budget
    """How far each window merges."""

    def cut(self, x_BN: Tensor, patches: int) -> Tensor:
        """The run's windows of a clip's tokens.

        Args:
            x_BN: (B, N, …), any dtype.
            patches: H·W, tokens of a frame.

        Returns:
            (B·W, n, …), n = frames · patches.
        """
        start, tokens = self.start_frame * patches, self.frames * patches
        mine_BN = x_BN[:, start : start + self.windows * tokens]
        return mine_BN.reshape(len(x_BN) * self.windows, tokens, *x_BN.shape[2:])


def split_windows(grid: Grid, budget: Budget) -> list[WindowRun]:
    """Cut a clip into the windows of a budget, the last one shorter where they do not divide its frames.

    A number of tokens is shared out in proportion to the frames, to the token.

    Args:
        grid: T, H, W.
        budget: of the whole clip; without windows, the clip is one.

    Returns:
        The runs in order of time, each with the budget of one of its windows.

    Raises:
        MergeError: fewer tokens are asked for than there are windows.
    """
    frames, window_frames = grid[0], budget.window_frames or grid[0]
    spans = [(start, min(start + window_frames, frames)) for start in range(0, frames, window_frames)]
    wanted = budget.num_tokens
    if wanted is not None and wanted < len(spans):
        raise MergeError(f"{wanted} tokens cannot be left of {len(spans)} windows: ask for a token a window at least")

    runs: list[WindowRun] = []
    for start, end in spans:
        # Never 0 tokens: a window's fair share is one or more, and the last one gets what rounding left.
        share = None if wanted is None else wanted * end // frames - wanted * start // frames
        part = replace(budget, window_frames=None, num_tokens=share)
        if runs and (runs[-1].frames, runs[-1].budget.num_tokens) == (end - start, share):
            runs[-1] = replace(runs[-1], windows=runs[-1].windows + 1)
        else:
            runs.append(WindowRun(start_frame=start, windows=1, frames=end - start, budget=part))
    return runs


def join_windows(plans: Sequence[MergePlan], batch: int) -> MergePlan:
    """One plan over the clip from the plans of its windows.

    Args:
        plans: one a run, each over the B·W windows that `WindowRun.cut` makes, in order of time.
        batch: B.

    Returns:
        A plan over B rows of N tokens, its groups in the order of the windows.
    """
    groups, targets = [], []
    group_start = token_start = 0
    for plan in plans:
        windows, tokens = len(plan.group) // batch, plan.group.shape[1]
        index_W1 = torch.arange(windows, device=plan.group.device)[:, None]
        group_BWn = plan.group.view(batch, windows, tokens) + index_W1 * plan.num_groups + group_start
        target_BWm = plan.targets.view(batch, windows, plan.num_groups) + index_W1 * tokens + token_start
        groups.append(group_BWn.flatten(1))
        targets.append(target_BWm.flatten(1))
        group_start += windows * plan.num_groups
        token_start += windows * tokens
    return MergePlan(group=torch.cat(groups, dim=1), num_groups=group_start, targets=torch.cat(targets, dim=1))
