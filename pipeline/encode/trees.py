"""A clip's features to its merge tree."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from pipeline.encode.features import ClipFeatures
from pipeline.settings import Recipe
from vtm import MergeTree, merge_tree, tree_of_fidelity
from vtm.budget import Budget
from vtm.growing import base_for
from vtm.upload import to_device


def clip_tree(features: ClipFeatures, recipe: Recipe, seed: int, weights_1K: Tensor | None = None) -> MergeTree:
    """The tree over the tokens that are stored, as many as the recipe says.

    Args:
        features: of one clip.
        recipe: `share_kept`, `tokens_per_clip` or `fidelity` says how far its base goes.
        seed: of what is drawn.
        weights_1K: (1, K) of a patch of each token that the encoder leaves; 1 where nothing is said.

    Raises:
        MergeError: the features are not finite.
    """
    total, left = math.prod(features.grid), features.patches_1KD.shape[1]
    weights = weights_1K
    if features.inside is not None:
        sizes_1K = features.inside.sizes.float()
        weights = sizes_1K if weights_1K is None else to_device(weights_1K, sizes_1K.device) * sizes_1K
    grid, gap = features.merge_grid, recipe.max_gap_frames
    if recipe.fidelity is not None:
        tree = tree_of_fidelity(
            features.patches_1KD, grid=grid, fidelity=recipe.fidelity, weights=weights, max_gap_frames=gap, seed=seed
        )
    else:
        wanted = Budget(keep=recipe.share_kept, num_tokens=recipe.tokens_per_clip).targets(total)
        count = min(left, wanted)
        tree = merge_tree(
            features.patches_1KD, grid=grid, base=base_for(count / left), weights=weights, max_gap_frames=gap, seed=seed
        )
        tree = tree.coarsen(num_tokens=count)
    if features.inside is not None:
        tree = replace(tree, base=features.inside.then(tree.base))
    return tree


def patch_weights(features: ClipFeatures, weights_1K: Tensor) -> Tensor:
    """(1, N) float32, of mean 1: weights of the source patches, from those of the tokens that the encoder leaves."""
    weights_1K = to_device(weights_1K, features.patches_1KD.device)
    weights_1N = weights_1K if features.inside is None else features.inside.spread(weights_1K[..., None])[..., 0]
    return weights_1N / weights_1N.mean()
