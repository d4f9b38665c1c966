"""A merge tree: one decision that serves every smaller number of tokens, share and fidelity.

A base of many small groups is merged pair by pair down to one (`vtm.growing`, `vtm.agglomeration`); the tree stores
for each group which one it merges into and at what loss. Cutting it leaves any number of groups. Cuts are nested, and
their fidelity is known from the losses, before anything is merged.

Letters: B batch, N tokens of a clip, M groups of the base, G groups of a cut, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vtm.budget import Budget
from vtm.errors import MergeError
from vtm.plan import Grid, MergePlan

FIDELITY_ROUNDING = 1e-6
"""Tolerance of a target: float32 losses do not resolve less."""


@dataclass(frozen=True, eq=False)
class MergeTree:
    """How the groups of a base go on merging, down to one group a clip."""

    base: MergePlan
    """N tokens to M groups, the finest cut."""
    parents: Tensor
    """(B, M) int64 in [0, M): the group into which each merges; the root is its own parent."""
    losses: Tensor
    """(B, M) float32: what that merge costs in Σ w·cos. All are distinct and grow along the parents; the root's is
    infinite."""
    base_fidelity: Tensor
    """(B,) float64: mean cosine, weighted by w, between tokens and the base's mean directions."""
    weight: Tensor
    """(B,) float64: Σ w of all tokens; N where all weigh alike."""

    def plan(
        self,
        *,
        keep: float | None = None,
        num_tokens: int | None = None,
        fidelity: float | None = None,
        max_loss: float | None = None,
    ) -> MergePlan:
        """Cut the tree: a plan from the N tokens to the groups that are left.

        Args:
            keep: share of the N tokens, above 0, rounded up.
            num_tokens: how many, from 1 to M.
            fidelity: the fewest with at least this mean cosine in every clip of the batch.
            max_loss: take all merges that cost at most this. All clips of the batch keep as many groups as the one
                that keeps most.

        Returns:
            The plan, its groups in the order of the base. With `fidelity` and `max_loss` the host waits for a GPU.

        Raises:
            MergeError: not one of the four is given, or the base is too coarse for it.
        """
        return self.coarsen(keep=keep, num_tokens=num_tokens, fidelity=fidelity, max_loss=max_loss).base

    def coarsen(
        self,
        *,
        keep: float | None = None,
        num_tokens: int | None = None,
        fidelity: float | None = None,
        max_loss: float | None = None,
    ) -> MergeTree:
        """The tree above a cut: `plan` of the same arguments is its base, and its cuts are this tree's.

        Arguments and errors as those of `plan`.
        """
        left = self._groups_left(keep, num_tokens, fidelity, max_loss)
        kept_BG, into_BM = cut_groups(self.parents, self.losses, left)
        later = MergePlan(group=into_BM, num_groups=left, targets=kept_BG)
        return MergeTree(
            base=self.base.then(later),
            parents=into_BM.gather(1, self.parents.gather(1, kept_BG)),
            losses=self.losses.gather(1, kept_BG),
            base_fidelity=self.fidelity_at(left),
            weight=self.weight,
        )

    def fidelity_at(self, num_tokens: int) -> Tensor:
        """The mean cosine of a cut, from the losses alone.

        Args:
            num_tokens: from 1 to M.

        Returns:
            (B,) float64.

        Raises:
            MergeError: the base has fewer groups.
        """
        self._check_count(num_tokens)
        return self.fidelities()[:, num_tokens - 1]

    def fidelities(self) -> Tensor:
        """The mean cosine of every cut: (B, M) float64, of m + 1 groups at position m."""
        return cut_fidelities(self.losses, self.base_fidelity, self.weight)

    def reorder(self, order_BM: Tensor) -> MergeTree:
        """The same tree with other group numbers: new group m is old group order[m].

        Args:
            order_BM: (B, M) int64, a permutation of [0, M) in each row.
        """
        rank_BM = order_BM.argsort(dim=1)
        return MergeTree(
            base=self.base.reorder(order_BM),
            parents=rank_BM.gather(1, self.parents.gather(1, order_BM)),
            losses=self.losses.gather(1, order_BM),
            base_fidelity=self.base_fidelity,
            weight=self.weight,
        )

    def ordered_by_center(self, grid: Grid) -> MergeTree:
        """The same tree with the base's groups ordered by centre time, then y, then x; ties keep their order.

        Args:
            grid: T, H, W with T·H·W = N.

        Raises:
            MergeError: the grid does not hold N tokens.
        """
        return self.reorder(self.base.group.gather(1, self.base.ordered_by_center(grid).targets))

    def to(self, device: torch.device | str) -> MergeTree:
        """The same tree on another device."""
        moved = (x.to(device) for x in (self.parents, self.losses, self.base_fidelity, self.weight))
        return MergeTree(self.base.to(device), *moved)

    def _groups_left(
        self, keep: float | None, num_tokens: int | None, fidelity: float | None, max_loss: float | None
    ) -> int:
        given = {"keep": keep, "num_tokens": num_tokens, "fidelity": fidelity, "max_loss": max_loss}
        named = {name: value for name, value in given.items() if value is not None}
        if len(named) != 1:
            raise MergeError(f"give one of {', '.join(given)}, got {' and '.join(named) or 'none'}")
        if keep is not None:
            num_tokens = Budget(keep=keep).targets(self.base.group.shape[1])
        if num_tokens is not None:
            self._check_count(num_tokens)
            return num_tokens
        if max_loss is not None:
            if not max_loss >= 0:
                raise MergeError(f"max_loss is a loss of summed cosine, 0 or more, got {max_loss}")
            return int((self.losses > max_loss).sum(dim=1).max())
        assert fidelity is not None, "one of the four is given"
        return self._groups_with(fidelity)

    def _groups_with(self, fidelity: float) -> int:
        if not fidelity <= 1:
            raise MergeError(f"fidelity is a mean cosine, at most 1, got {fidelity}")
        least = float(self.base_fidelity.min())
        if least < fidelity - FIDELITY_ROUNDING:
            raise MergeError(f"the base's fidelity is {least:.4f}, below {fidelity}: give the tree a finer base")
        return 1 + int((self.fidelities() < fidelity - FIDELITY_ROUNDING).sum(dim=1).max())

    def _check_count(self, num_tokens: int) -> None:
        if num_tokens != int(num_tokens) or not 1 <= num_tokens <= self.base.num_groups:
            raise MergeError(
                f"a cut leaves from 1 to {self.base.num_groups} tokens, the groups of the tree's base, got {num_tokens}"
            )


def cut_fidelities(losses_BM: Tensor, base_fidelity_B: Tensor, weight_B: Tensor) -> Tensor:
    """The mean cosine of every cut of a tree given as losses.

    Args:
        losses_BM: (B, M) float32, as `MergeTree.losses`.
        base_fidelity_B: (B,) float64, of all M groups.
        weight_B: (B,) float64, Σ w of all tokens.

    Returns:
        (B, M) float64, of m + 1 groups at position m.
    """
    # The root's loss is infinite; the others, dearest first, are what each further group saves.
    saved_BM = losses_BM.sort(dim=1, descending=True).values[:, 1:].double()
    lost_BM = F.pad(saved_BM.flip(1).cumsum(dim=1).flip(1), (0, 1))
    return base_fidelity_B[:, None] - lost_BM / weight_B[:, None]


def cut_groups(parents_BM: Tensor, losses_BM: Tensor, num_left: int) -> tuple[Tensor, Tensor]:
    """Cut a tree given as parents and losses.

    Args:
        parents_BM: (B, M) int64, as `MergeTree.parents`.
        losses_BM: (B, M) float32, as `MergeTree.losses`.
        num_left: G, from 1 to M.

    Returns:
        The groups that are left, (B, G) int64, increasing; and the position among them of the one that each group was
        merged into, (B, M) int64 in [0, G).
    """
    total, device = parents_BM.shape[1], parents_BM.device
    # Losses are distinct, so the same groups are left in whatever order they are stored.
    kept_BG = losses_BM.argsort(dim=1, descending=True, stable=True)[:, :num_left].sort(dim=1).values
    rank_BM = torch.full_like(parents_BM, -1)
    rank_BM.scatter_(1, kept_BG, torch.arange(num_left, device=device).expand_as(kept_BG))
    up_BM = torch.where(rank_BM >= 0, torch.arange(total, device=device), parents_BM)
    for _ in range(max(1, total - 1).bit_length()):
        up_BM = up_BM.gather(1, up_BM)
    return kept_BG, rank_BM.gather(1, up_BM)
