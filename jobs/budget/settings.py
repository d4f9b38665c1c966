"""The settings that are compared: every strategy at every share, each carried out as a run would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from jobs.budget.samples import Sample
from vtm import MergePlan, Strategy, merge_plan, merge_tree, tree_of_fidelity
from vtm.growing import base_for

STRATEGIES = ("naive", "center", "boundary", "motion", "saliency", "coverage", "tree")
"""Those that need no training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to merge."""

    strategy: str
    keep: float | None = None
    """Share of the patches."""
    fidelity: float | None = None
    """Mean cosine in every clip, instead."""

    @property
    def options(self) -> str:
        """As they are given to `vtm extract`."""
        amount = f"--keep {self.keep:g}" if self.fidelity is None else f"--fidelity {self.fidelity:g}"
        return f"--strategy {self.strategy} {amount}"

    @property
    def has_tree(self) -> bool:
        """Whether rows hold a merge tree."""
        return self.strategy == "tree"

    def plan(self, sample: Sample) -> MergePlan:
        """Merge a clip.

        Raises:
            MergeError: the features are not finite.
        """
        features = sample.features
        patches_1ND, grid, seed = features.patches_1KD, features.merge_grid, sample.seed
        if self.fidelity is not None:
            return tree_of_fidelity(patches_1ND, grid=grid, fidelity=self.fidelity, seed=seed).base
        assert self.keep is not None, "one of the two is given"
        if self.has_tree:
            return merge_tree(patches_1ND, grid=grid, base=base_for(self.keep), seed=seed).plan(keep=self.keep)
        return merge_plan(
            features.keys_1Kd,
            strategy=cast(Strategy, self.strategy),
            grid=grid,
            keep=self.keep,
            seed=seed,
            motion=sample.motion_1THW,
            saliency=features.saliency_1K,
            features=patches_1ND,
        )


def settings_of(strategies: Sequence[str], keeps: Sequence[float], reach: float | None) -> list[Setting]:
    """Every strategy with every share; and, where a fidelity is to be reached, the tree that is asked for it."""
    compared = [Setting(strategy=strategy, keep=keep) for strategy in strategies for keep in keeps]
    if reach is not None and "tree" in strategies:
        compared.append(Setting(strategy="tree", fidelity=reach))
    return compared
