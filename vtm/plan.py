"""A merge as a value: which of M groups each of N tokens belongs to.

A plan is decided once, from keys, and then applied to anything with a token axis: features, positions, sizes.

Letters: B batch, N tokens before the merge, M groups after it, C channels (any number).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from vtm.errors import MergeError
from vtm.segments import SortedRows, segment_sum, sort_rows

Cached = TypeVar("Cached")

Grid = tuple[int, int, int]
"""Frames, rows and columns (T, H, W) of the patches of a clip; token i is patch (t, y, x) in that order."""


@dataclass(frozen=True, eq=False)
class MergePlan:
    """Which of M groups each of N tokens belongs to; no group is empty.

    Groups are ordered by the position of their target, an unmerged token being its own target; `ordered_by_center`
    orders them by time and place.
    """

    group: Tensor
    """(B, N) int64 in [0, M)."""
    num_groups: int
    """M."""
    targets: Tensor
    """(B, M) int64 in [0, N): the token that each group was formed around, a member of it."""

    @staticmethod
    def cat(plans: Sequence[MergePlan], dim: int = 0) -> MergePlan:
        """Concatenate plans: their rows (`dim` 0), or their tokens and groups (`dim` 1).

        Args:
            plans: one or more; of as many tokens and groups for `dim` 0, of as many rows for `dim` 1.
            dim: 0 or 1. For 1 a plan's groups follow those of the plan before it.

        Raises:
            MergeError: there is no plan, or their shapes do not fit.
        """
        if not plans or dim not in (0, 1):
            raise MergeError(f"cat takes one plan or more and dim 0 or 1, got {len(plans)} plans and dim {dim}")
        common = [(*plan.group.shape[1:], plan.num_groups) if dim == 0 else len(plan.group) for plan in plans]
        if any(shape != common[0] for shape in common):
            raise MergeError(f"plans have equal {('tokens and groups', 'rows')[dim]} along dim {dim}, got {common}")
        if len(plans) == 1:
            return plans[0]
        if dim == 0:
            group_BN = torch.cat([plan.group for plan in plans])
            return MergePlan(group_BN, plans[0].num_groups, torch.cat([plan.targets for plan in plans]))
        groups, targets, first_group, first_token = [], [], 0, 0
        for plan in plans:
            groups.append(plan.group + first_group)
            targets.append(plan.targets + first_token)
            first_group += plan.num_groups
            first_token += plan.group.shape[1]
        return MergePlan(torch.cat(groups, dim=1), first_group, torch.cat(targets, dim=1))

    def tile(self, rows: int) -> MergePlan:
        """Join every `rows` consecutive rows of the batch into one: frames, or windows, become their clip.

        Args:
            rows: W, a divisor of the rows of the batch.

        Returns:
            A plan of B / W rows of W·N tokens and W·M groups, window after window.

        Raises:
            MergeError: the rows of the batch are no multiple of W.
        """
        if rows < 1 or len(self.group) % rows:
            raise MergeError(f"tile joins a divisor of the {len(self.group)} rows of the batch, got {rows}")
        batch, tokens = len(self.group) // rows, self.group.shape[1]
        index_W1 = torch.arange(rows, device=self.group.device)[:, None]
        group_BWN = self.group.view(batch, rows, tokens) + index_W1 * self.num_groups
        target_BWM = self.targets.view(batch, rows, self.num_groups) + index_W1 * tokens
        return MergePlan(group_BWN.flatten(1), rows * self.num_groups, target_BWM.flatten(1))

    @property
    def sizes(self) -> Tensor:
        """(B, M) int32: tokens in each group; each row sums to N."""
        return self._cached("sizes", self._counts)

    def _counts(self) -> Tensor:
        counts_BM = self.group.new_zeros(self.group.shape[0], self.num_groups, dtype=torch.int32)
        return counts_BM.scatter_add_(1, self.group, torch.ones_like(self.group, dtype=torch.int32))

    def _sorted_rows(self) -> SortedRows:
        return sort_rows(self.group, self.num_groups)

    def _cached(self, name: str, make: Callable[[], Cached]) -> Cached:
        """The result of `make`, computed once for all uses of the plan."""
        if torch.compiler.is_compiling():
            return make()
        cached: dict[str, Any] = self.__dict__.setdefault("_results", {})
        if name not in cached:
            # A tensor made in inference mode could not be used where gradients are taken.
            with torch.inference_mode(self.group.is_inference()):
                cached[name] = make()
        result: Cached = cached[name]
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {"group": self.group, "num_groups": self.num_groups, "targets": self.targets}

    def sum(self, x_BNC: Tensor) -> Tensor:
        """Add up each group.

        Args:
            x_BNC: (B, N, C), any float dtype.

        Returns:
            (B, M, C) in float32, or in float64 where x is: a bfloat16 sum would stop growing at 256 terms.

        Raises:
            MergeError: x has not one row a token.
        """
        self._check_tokens(x_BNC)
        return segment_sum(
            x_BNC,
            self.group,
            self.num_groups,
            self._cached("rows", self._sorted_rows) if x_BNC.device.type != "cpu" else None,
        )

    def mean(self, x_BNC: Tensor) -> Tensor:
        """Average each group, all tokens counting alike (the paper's equation 4).

        Args:
            x_BNC: (B, N, C), any float dtype; gradients flow through.

        Returns:
            (B, M, C) in the dtype of x, accumulated in float32 at least.

        Raises:
            MergeError: x has not one row a token.
        """
        total_BMC = self.sum(x_BNC)
        return (total_BMC / self.sizes[..., None].to(total_BMC.dtype)).to(x_BNC.dtype)

    def weighted_mean(self, x_BNC: Tensor, sizes_BN: Tensor) -> Tensor:
        """Average each group, a token counting as often as the patches it represents (ToMe, section 3).

        Args:
            x_BNC: (B, N, C), any float dtype.
            sizes_BN: (B, N) positive weights, usually the sizes of an earlier plan.

        Returns:
            (B, M, C) in the dtype of x, accumulated in float32 at least.

        Raises:
            MergeError: x has not one row a token.
        """
        self._check_tokens(x_BNC)
        weight_BN1 = sizes_BN[..., None].to(torch.promote_types(x_BNC.dtype, torch.float32))
        total_BMC = self.sum(x_BNC * weight_BN1)
        return (total_BMC / self.sum(weight_BN1)).to(x_BNC.dtype)

    def spread(self, y_BMC: Tensor) -> Tensor:
        """Give each token its group's value.

        Args:
            y_BMC: (B, M, C), any dtype.

        Returns:
            (B, N, C) in the dtype of y.

        Raises:
            MergeError: y has not one row a group.
        """
        if y_BMC.dim() != 3 or y_BMC.shape[:2] != (self.group.shape[0], self.num_groups):
            expected = f"({self.group.shape[0]}, {self.num_groups}, C)"
            raise MergeError(f"the plan spreads values of shape {expected}, got {tuple(y_BMC.shape)}")
        rows_BN = self.group + self._row_offsets(self.num_groups)
        return y_BMC.flatten(0, 1).index_select(0, rows_BN.flatten()).view(*self.group.shape, y_BMC.shape[2])

    def then(self, later: MergePlan) -> MergePlan:
        """Compose with a plan over this plan's groups.

        Args:
            later: of M tokens, this plan's groups.

        Returns:
            One plan from the N tokens to the later plan's groups.

        Raises:
            MergeError: the later plan is not over this plan's M groups.
        """
        if later.group.shape != self.targets.shape:
            expected, got = tuple(self.targets.shape), tuple(later.group.shape)
            raise MergeError(f"a plan that follows this one is over {expected} groups, got {got}")
        return MergePlan(
            group=later.group.gather(1, self.group),
            num_groups=later.num_groups,
            targets=self.targets.gather(1, later.targets),
        )

    def centers(self, grid: Grid) -> Tensor:
        """Mean position of each group's tokens.

        Args:
            grid: T, H, W with T·H·W = N.

        Returns:
            (B, M, 3) float32: t, y, x in patch units, equal on every device (whole numbers are added up).

        Raises:
            MergeError: the grid does not hold N tokens.
        """
        position_N3 = token_positions(grid, self.group.device)
        if len(position_N3) != self.group.shape[1]:
            raise MergeError(f"grid {grid} does not hold the plan's {self.group.shape[1]} tokens")
        index_BN3 = self.group[..., None].expand(-1, -1, 3)
        total_BM3 = self.group.new_zeros(self.group.shape[0], self.num_groups, 3)
        total_BM3.scatter_add_(1, index_BN3, position_N3.expand_as(index_BN3))
        return (total_BM3.double() / self.sizes[..., None]).float()

    def ordered_by_center(self, grid: Grid) -> MergePlan:
        """The same merge with its groups ordered by centre time, then y, then x; ties keep their order.

        Args:
            grid: T, H, W with T·H·W = N.

        Raises:
            MergeError: the grid does not hold N tokens.
        """
        centers_BM3 = self.centers(grid)
        order_BM = torch.arange(self.num_groups, device=self.group.device).expand_as(self.targets)
        for axis in (2, 1, 0):
            key_BM = centers_BM3[..., axis].gather(1, order_BM)
            order_BM = order_BM.gather(1, key_BM.argsort(dim=1, stable=True))
        return self.reorder(order_BM)

    def reorder(self, order_BM: Tensor) -> MergePlan:
        """The same merge with other group numbers: new group m is old group order[m].

        Args:
            order_BM: (B, M) int64, a permutation of [0, M) in each row.
        """
        rank_BM = torch.empty_like(order_BM)
        rank_BM.scatter_(1, order_BM, torch.arange(self.num_groups, device=order_BM.device).expand_as(order_BM))
        return MergePlan(
            group=rank_BM.gather(1, self.group),
            num_groups=self.num_groups,
            targets=self.targets.gather(1, order_BM),
        )

    def to(self, device: torch.device | str) -> MergePlan:
        """The same plan on another device."""
        return MergePlan(self.group.to(device), self.num_groups, self.targets.to(device))

    def _row_offsets(self, rows: int) -> Tensor:
        return torch.arange(self.group.shape[0], device=self.group.device)[:, None] * rows

    def _check_tokens(self, x_BNC: Tensor) -> None:
        if x_BNC.dim() != 3 or x_BNC.shape[:2] != self.group.shape:
            raise MergeError(
                f"the plan merges tokens of shape ({self.group.shape[0]}, {self.group.shape[1]}, C), "
                f"got {tuple(x_BNC.shape)}"
            )


def identity_plan(batch: int, tokens: int, device: torch.device | str = "cpu") -> MergePlan:
    """The plan that merges nothing: N groups of one token.

    Args:
        batch: B.
        tokens: N.
        device: where the plan is to be.
    """
    group_BN = torch.arange(tokens, device=device).repeat(batch, 1)
    return MergePlan(group=group_BN, num_groups=tokens, targets=group_BN)


def token_positions(grid: Grid, device: torch.device | str = "cpu") -> Tensor:
    """Where each token of a grid is.

    Args:
        grid: T, H, W.
        device: where the positions are to be.

    Returns:
        (T·H·W, 3) int64: t, y, x.
    """
    frames, rows, columns = grid
    index_N = torch.arange(frames * rows * columns, device=device)
    return torch.stack((index_N // (rows * columns), index_N // columns % rows, index_N % columns), dim=1)
