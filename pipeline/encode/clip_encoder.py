"""Decoded clips to token sets: the encoder, the merge, and the numbers that go with them. Imports torch and vtm.

Letters: T frames, H x W patch grid, N = T*H*W source patches, K tokens that the encoder leaves (N where it merges
nothing inside), M merged tokens, D channels.
"""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cache.cut import stored_tokens
from pipeline.encode.describe import TORCH_DTYPES
from pipeline.encode.features import ClipFeatures, VitFeatures
from pipeline.encode.foreign.describe import foreign_features
from pipeline.encode.foreign.features import ForeignFeatures
from pipeline.encode.reuse import ReusingFeatures
from pipeline.encode.trees import clip_tree, patch_weights
from pipeline.encode.video_llm.describe import video_llm_features
from pipeline.errors import EncodeError, SettingsError
from pipeline.plan.clips import at_grid_times
from pipeline.run_description import EncoderDescription
from pipeline.settings import Recipe
from pipeline.values import DecodedClip, TokenSet
from vtm import (
    Grid,
    MergeError,
    MergePlan,
    MergeTree,
    Strategy,
    fidelity,
    identity_plan,
    merge_plan,
    token_cosines,
    token_motion,
    weighted_mean,
    weights_from,
)
from vtm.budget import Budget
from vtm.encoders import EncoderError, load_encoder
from vtm.encoders.compiling import compile_blocks
from vtm.network import NetworkError, SaliencyScorer, VideoTokenMerging, load_network, load_scorer, stored_kind

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Merged:
    """What a clip becomes: tokens, and the plan from the N source patches to them."""

    tokens_1MD: Tensor
    plan: MergePlan
    tree: MergeTree | None = None
    """Over the tokens, where they can be merged further."""
    weights_1N: Tensor | None = None
    """Of the source patches, where they do not all weigh 1."""


def clip_seed(clip_id: str) -> int:
    """The seed of everything that is sampled for a clip."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8], "big") >> 1


class ClipEncoder:
    """A loaded encoder that turns decoded clips into token sets."""

    def __init__(self, recipe: Recipe, description: EncoderDescription, device: str) -> None:
        self._recipe = recipe
        self._frames_per_row = description.frames_per_token_row
        self._takes_even_time = description.frames_per_pass > 1
        self._network: VideoTokenMerging | None = None
        self._scorer: SaliencyScorer | None = None
        try:
            self._features = _load_features(recipe, description, device)
            if recipe.vtm is not None and stored_kind(recipe.vtm) == "network":
                self._network = load_network(recipe.vtm, device)
            elif recipe.vtm is not None:
                self._scorer = load_scorer(recipe.vtm, device)
        except (EncoderError, NetworkError) as error:
            raise SettingsError(str(error)) from error

    @property
    def _reads_token_motion(self) -> bool:
        # A network learns from caches, which hold no codec's motion.
        return self._network is not None and self._network.config.strategy == "motion"

    @torch.inference_mode()
    def encode(self, clip: DecodedClip, uri: str) -> TokenSet:
        """Encode and merge one clip.

        Args:
            clip: Frames at the encoder's size.
            uri: Address of the video, for the record.

        Raises:
            EncodeError: the encoder or the merge failed on good frames.
        """
        if self._takes_even_time:
            clip = at_grid_times(clip)
        try:
            features = self._features(clip.frames, saliency=self._recipe.reads_saliency)
            merged = self._merge(features, clip)
        except (MergeError, NetworkError, RuntimeError) as error:
            raise EncodeError(f"clip {clip.spec.clip_id} cannot be encoded: {error}") from error
        plan, grid = merged.plan, features.grid
        sources_1ND = features.sources()
        stand_ins = merged.tokens_1MD if self._network is None else plan.mean(sources_1ND)
        tokens, scale = stored_tokens(merged.tokens_1MD[0], self._recipe.dtype)
        # The mean over all patches is the mean of the tokens weighted by their sizes; a network's tokens are no means.
        group_dtype = np.uint16 if plan.num_groups <= 1 << 16 else np.uint32
        weights_1N = merged.weights_1N
        mass_M = plan.sizes[0].float() if weights_1N is None else plan.sum(weights_1N[..., None])[0, :, 0]
        pooled_D = torch.nn.functional.normalize((merged.tokens_1MD[0] * mass_M[:, None]).sum(dim=0), dim=0)
        return TokenSet(
            clip_id=clip.spec.clip_id,
            video_id=clip.spec.video_id,
            uri=uri,
            clip_index=clip.spec.index,
            start_ns=clip.spec.start_ns,
            end_ns=clip.spec.end_ns,
            frame_time_ns=clip.frame_time_ns,
            grid_thw=grid,
            tokens=tokens,
            tokens_dtype=self._recipe.dtype,
            tokens_scale=scale,
            sizes=plan.sizes[0].cpu().numpy(),
            centers=plan.centers(grid)[0].cpu().numpy(),
            group=plan.group[0].cpu().numpy().astype(group_dtype),
            parent=None if merged.tree is None else merged.tree.parents[0].cpu().numpy().astype(group_dtype),
            loss=None if merged.tree is None else merged.tree.losses[0].cpu().numpy(),
            weights=None if weights_1N is None else mass_M.cpu().numpy(),
            pooled=pooled_D.cpu().numpy(),
            fidelity=_fidelity(sources_1ND, plan, stand_ins, weights_1N),
            motion_source="tokens" if self._reads_token_motion else clip.motion_source,
            damaged_frames=clip.damaged_frames,
            encoded_patches=features.encoded_patches,
        )

    def _merge(self, features: ClipFeatures, clip: DecodedClip) -> _Merged:
        """Merge over the whole clip, by the network where there is one."""
        seed, grid = clip_seed(clip.spec.clip_id), features.grid
        if self._network is not None:
            motion = token_motion(features.patches_1KD, grid) if self._reads_token_motion else None
            tokens_1MD, plan = self._network.tokens(features.patches_1KD, grid, seeds=[seed], motion=motion)
            order_1M = _order_by_center(plan, grid)
            return _Merged(tokens_1MD.gather(1, order_1M[..., None].expand_as(tokens_1MD)), plan.reorder(order_1M))
        if self._recipe.strategy == "tree":
            return self._merge_by_tree(features, clip, seed)
        later = self._plan(features, clip, seed)
        whole = later if features.inside is None else features.inside.then(later)
        plan = whole.ordered_by_center(grid)
        return _Merged(plan.sum(features.sources()) / plan.sizes[..., None], plan)

    def _merge_by_tree(self, features: ClipFeatures, clip: DecodedClip, seed: int) -> _Merged:
        scores = features.saliency_1K if self._recipe.weights == "saliency" else self._motion(features, clip)
        weights_1K = None if self._recipe.weights == "uniform" or scores is None else weights_from(scores.cpu())
        tree = clip_tree(features, self._recipe, seed, weights_1K)
        plan, sources_1ND = tree.base, features.sources()
        if weights_1K is None:
            return _Merged(plan.sum(sources_1ND) / plan.sizes[..., None], plan, tree)
        weights_1N = patch_weights(features, weights_1K)
        return _Merged(weighted_mean(sources_1ND, plan, weights_1N), plan, tree, weights_1N)

    def _motion(self, features: ClipFeatures, clip: DecodedClip) -> Tensor | None:
        return None if clip.motion is None else motion_on(features.grid, clip.motion, self._frames_per_row)

    def _plan(self, features: ClipFeatures, clip: DecodedClip, seed: int) -> MergePlan:
        recipe = self._recipe
        total, left = math.prod(features.grid), features.keys_1Kd.shape[1]
        if recipe.strategy == "none":
            return identity_plan(1, left, features.keys_1Kd.device)
        keep, num_tokens = recipe.share_kept, recipe.tokens_per_clip
        if features.inside is not None and keep is not None:
            # The share is one of the source patches, of which the encoder has left a part.
            keep, num_tokens = None, min(left, Budget(keep=keep).targets(total))
        saliency = features.saliency_1K
        if self._scorer is not None:
            read = features.keys_1Kd if self._scorer.reads == "keys" else features.patches_1KD
            saliency = self._scorer(read, features.merge_grid)
        return merge_plan(
            features.keys_1Kd,
            strategy=cast(Strategy, recipe.strategy),
            grid=features.merge_grid,
            partition_factor=recipe.partition_factor,
            merge_share=recipe.merge_share,
            keep=keep,
            num_tokens=num_tokens,
            seed=seed,
            motion=self._motion(features, clip),
            saliency=saliency,
            features=features.patches_1KD,
        )


def _load_features(
    recipe: Recipe, description: EncoderDescription, device: str
) -> VitFeatures | ReusingFeatures | ForeignFeatures:
    """What turns frames into features."""
    dtype = TORCH_DTYPES[description.compute_dtype]
    if description.video_llm is not None:
        return video_llm_features(recipe, dtype, device)
    if description.architecture is not None:
        return foreign_features(recipe, dtype, device)
    encoder = load_encoder(
        recipe.encoder,
        layer=recipe.layer,
        revision=recipe.revision,
        dtype=dtype,
        device=device,
        encoder_keep=recipe.encoder_keep,
    )
    if recipe.reuse_levels is not None:
        return ReusingFeatures(encoder, recipe.batch_frames, recipe.reuse_levels)
    if recipe.compile and (complaint := compile_blocks(encoder, recipe.batch_frames)) is not None:
        log.warning(complaint)
    return VitFeatures(encoder, recipe.batch_frames)


def motion_on(grid: Grid, motion_THW: NDArray[np.float32], frames_per_row: int) -> Tensor:
    """The motion of sampled frames on the grid of the features, (1, T, H, W): the mean of what each patch covers."""
    motion = torch.from_numpy(motion_THW)
    if tuple(motion.shape) != grid:
        rows = [part.mean(dim=0) for part in torch.split(motion, frames_per_row)]
        motion = torch.nn.functional.adaptive_avg_pool2d(torch.stack(rows), grid[1:])
    return motion[None]


def _fidelity(sources_1ND: Tensor, plan: MergePlan, stand_ins_1MD: Tensor, weights_1N: Tensor | None) -> float:
    """Mean cosine between the patches, as they weigh, and the tokens that represent them."""
    if weights_1N is None:
        return float(fidelity(sources_1ND, plan, stand_ins_1MD)[0])
    cosine_1N = token_cosines(sources_1ND, plan, stand_ins_1MD).double()
    return float((cosine_1N * weights_1N).sum() / weights_1N.double().sum())


def _order_by_center(plan: MergePlan, grid: Grid) -> Tensor:
    """(1, M) the old number of each new group in order of centre time, then y, then x."""
    ordered = plan.ordered_by_center(grid)
    return plan.group.gather(1, ordered.targets)
