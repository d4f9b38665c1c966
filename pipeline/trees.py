"""A clip's features to its merge tree."""

from __future__ import annotations

import math
from dataclasses import replace

from pipeline.features import ClipFeatures
from pipeline.settings import Recipe
from vtm import MergeTree, merge_tree, tree_of_fidelity
from vtm.budget import Budget
from vtm.growing import DEFAULT_BASE


def clip_tree(features: ClipFeatures, recipe: Recipe, seed: int) -> MergeTree:
    """The tree over the tokens that are stored, as many as the recipe says, ordered by their centres.

    Args:
        features: of one clip.
        recipe: `share_kept`, `tokens_per_clip` or `fidelity` says how far its base goes.
        seed: of what is drawn.

    Raises:
        MergeError: the features are not finite.
    """
    total, left = math.prod(features.grid), features.patches_1KD.shape[1]
    weights = None if features.inside is None else features.inside.sizes.float()
    grid, gap = features.merge_grid, recipe.max_gap_frames
    if recipe.fidelity is not None:
        tree = tree_of_fidelity(
            features.patches_1KD, grid=grid, fidelity=recipe.fidelity, weights=weights, max_gap_frames=gap, seed=seed
        )
    else:
        wanted = Budget(keep=recipe.share_kept, num_tokens=recipe.tokens_per_clip).targets(total)
        count = min(left, wanted)
        base = max(DEFAULT_BASE, count / left)
        tree = merge_tree(features.patches_1KD, grid=grid, base=base, weights=weights, max_gap_frames=gap, seed=seed)
        tree = tree.coarsen(num_tokens=count)
    if features.inside is not None:
        tree = replace(tree, base=features.inside.then(tree.base))
    return tree.ordered_by_center(features.grid)
