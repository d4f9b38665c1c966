"""Decoded clips to token sets: the encoder, the merge, and the numbers that go with them. Imports torch and vtm.

Letters: T frames, H x W patch grid, N = T*H*W source patches, K tokens that the encoder leaves (N where it merges
nothing inside), M merged tokens, D channels.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.encode.clip_arrays import ClipArrays, HostCopy, arrays_of, in_order
from pipeline.encode.describe import TORCH_DTYPES
from pipeline.encode.devices import fix_arithmetic
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
    Strategy,
    identity_plan,
    merge_plan,
    token_motion,
    weights_from,
)
from vtm.budget import Budget
from vtm.encoders import EncoderError, load_encoder
from vtm.encoders.compiling import compile_blocks
from vtm.network import NetworkError, SaliencyScorer, VideoTokenMerging, load_network, load_scorer, stored_kind
from vtm.upload import to_device


@dataclass(frozen=True, slots=True, eq=False)
class Launched:
    """A clip whose numbers are on their way."""

    clip: DecodedClip
    grid: Grid
    numbers: HostCopy
    encoded_patches: int | None
    batch_frames: int


def clip_seed(clip_id: str) -> int:
    """The seed of everything that is sampled for a clip."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8], "big") >> 1


class ClipEncoder:
    """A loaded encoder that turns decoded clips into token sets."""

    def __init__(self, recipe: Recipe, description: EncoderDescription, device: str) -> None:
        self._recipe = recipe
        self._tubelet_frames = description.tubelet_frames
        self._takes_even_time = description.frames_per_pass > 1
        self._network: VideoTokenMerging | None = None
        self._scorer: SaliencyScorer | None = None
        fix_arithmetic()
        try:
            self._features = load_features(recipe, description, device)
            if recipe.scorer is not None and recipe.strategy == "learnable" and stored_kind(recipe.scorer) == "network":
                self._network = load_network(recipe.scorer, device)
            elif recipe.scorer is not None:
                self._scorer = load_scorer(recipe.scorer, device)
        except (EncoderError, NetworkError) as error:
            raise SettingsError(str(error)) from error

    @property
    def _reads_token_motion(self) -> bool:
        # A network learns from caches, which hold no codec's motion.
        return self._network is not None and self._network.config.strategy == "motion"

    @torch.inference_mode()
    def source_tokens(self, frames_THW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The encoder's tokens of some frames before the merge, (T, H*W, D)."""
        features = self._features(frames_THW3)
        tokens: NDArray[np.float32] = features.sources()[0].float().cpu().numpy()
        return tokens.reshape(features.grid[0], -1, tokens.shape[-1])

    def encode(self, clip: DecodedClip, uri: str) -> TokenSet:
        """Encode and merge one clip.

        Args:
            clip: Frames at the encoder's size.
            uri: Address of the video, for the record.

        Raises:
            EncodeError: the encoder or the merge failed on good frames.
        """
        return self.finish(self.launch(clip), uri)

    @torch.inference_mode()
    def launch(self, clip: DecodedClip) -> Launched:
        """Begin to encode and merge one clip. A GPU may still be at it when this returns.

        Args:
            clip: Frames at the encoder's size.

        Raises:
            EncodeError: the encoder or the merge failed on good frames.
        """
        if self._takes_even_time:
            clip = at_grid_times(clip)
        try:
            features = self._features(clip.frames, saliency=self._recipe.reads_saliency)
            numbers = HostCopy(self._merge(features, clip))
        except (MergeError, NetworkError, RuntimeError) as error:
            raise EncodeError(f"clip {clip.spec.clip_id} cannot be encoded: {error}") from error
        return Launched(clip, features.grid, numbers, features.encoded_patches, features.batch_frames)

    def finish(self, launched: Launched, uri: str) -> TokenSet:
        """Wait for a clip's numbers.

        Args:
            launched: From `launch`.
            uri: Address of the video, for the record.

        Raises:
            EncodeError: what was launched failed.
        """
        clip, spec = launched.clip, launched.clip.spec
        try:
            arrays, centers = in_order(launched.numbers.take(), launched.grid)
        except RuntimeError as error:
            raise EncodeError(f"clip {spec.clip_id} cannot be encoded: {error}") from error
        return TokenSet(
            clip_id=spec.clip_id,
            video_id=spec.video_id,
            uri=uri,
            clip_index=spec.index,
            start_ns=spec.start_ns,
            end_ns=spec.end_ns,
            frame_time_ns=clip.frame_time_ns,
            grid_thw=launched.grid,
            tokens=arrays.tokens_MD,
            tokens_dtype=self._recipe.dtype,
            tokens_scale=arrays.scale_M,
            sizes=arrays.sizes_M,
            centers=centers,
            group=arrays.group_N,
            parent=arrays.parent_M,
            loss=arrays.loss_M,
            weights=arrays.weights_M,
            pooled=arrays.pooled_D,
            embedding=arrays.embedding_E,
            fidelity=float(arrays.fidelity),
            motion_source="tokens" if self._reads_token_motion else clip.motion_source,
            damaged_frames=clip.damaged_frames,
            encoded_patches=launched.encoded_patches,
            batch_frames=launched.batch_frames,
        )

    def _merge(self, features: ClipFeatures, clip: DecodedClip) -> ClipArrays:
        """Merge over the whole clip, by the network where there is one."""
        seed, grid, dtype = clip_seed(clip.spec.clip_id), features.grid, self._recipe.dtype
        if self._network is not None:
            motion = token_motion(features.patches_1KD, grid) if self._reads_token_motion else None
            tokens_1MD, plan = self._network.tokens(features.patches_1KD, grid, seeds=[seed], motion=motion)
            sources_1ND = features.sources()
            return arrays_of(sources_1ND, plan, dtype, network_1MD=tokens_1MD, embedding_E=features.embedding_E)
        if self._recipe.strategy == "tree":
            return self._merge_by_tree(features, clip, seed)
        later = self._plan(features, clip, seed)
        plan = later if features.inside is None else features.inside.then(later)
        return arrays_of(features.sources(), plan, dtype, embedding_E=features.embedding_E)

    def _merge_by_tree(self, features: ClipFeatures, clip: DecodedClip, seed: int) -> ClipArrays:
        weights_1K = self._token_weights(features, clip)
        tree = clip_tree(features, self._recipe, seed, weights_1K)
        return arrays_of(
            features.sources(),
            tree.base,
            self._recipe.dtype,
            weights_1N=None if weights_1K is None else patch_weights(features, weights_1K),
            tree=tree,
            embedding_E=features.embedding_E,
        )

    def _token_weights(self, features: ClipFeatures, clip: DecodedClip) -> Tensor | None:
        """(1, K) on the features' device: the weight of each token the encoder leaves; None where all weigh alike."""
        if self._recipe.weights == "learnt":
            assert self._scorer is not None, "the settings say that learnt weights come with --scorer"
            return self._scorer.weights(self._read_by(self._scorer, features), features.merge_grid)
        by_name = {"saliency": features.saliency_1K, "motion": self._motion(features, clip)}
        scores = by_name.get(self._recipe.weights)
        return None if scores is None else weights_from(to_device(scores, features.patches_1KD.device))

    def _read_by(self, scorer: SaliencyScorer, features: ClipFeatures) -> Tensor:
        return features.keys_1Kd if scorer.reads == "keys" else features.patches_1KD

    def _motion(self, features: ClipFeatures, clip: DecodedClip) -> Tensor | None:
        return None if clip.motion is None else motion_on(features.grid, clip.motion, self._tubelet_frames)

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
            saliency = self._scorer(self._read_by(self._scorer, features), features.merge_grid)
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


def load_features(
    recipe: Recipe, description: EncoderDescription, device: str
) -> VitFeatures | ReusingFeatures | ForeignFeatures:
    """What turns frames into features."""
    dtype = TORCH_DTYPES[description.compute_dtype]
    if description.video_llm is not None:
        return video_llm_features(recipe, description.batch_frames, dtype, device)
    if description.architecture is not None:
        return foreign_features(recipe, description.batch_frames, dtype, device)
    encoder = load_encoder(
        recipe.encoder,
        layer=recipe.layer,
        revision=recipe.revision,
        dtype=dtype,
        device=device,
        encoder_keep=recipe.encoder_keep,
        pooled=recipe.embedding == "always",
    )
    if recipe.reuse_levels is not None:
        return ReusingFeatures(encoder, description.batch_frames, recipe.reuse_levels)
    if recipe.compile:
        compile_blocks(encoder, description.batch_frames)
    return VitFeatures(
        encoder, description.batch_frames, embedding=description.embedding_dim > 0, compiled=recipe.compile
    )


def motion_on(grid: Grid, motion_THW: NDArray[np.float32], tubelet_frames: int) -> Tensor:
    """The motion of sampled frames on the grid of the features, (1, T, H, W): the mean of what each patch covers."""
    motion = torch.from_numpy(motion_THW)
    if tuple(motion.shape) != grid:
        rows = [part.mean(dim=0) for part in torch.split(motion, tubelet_frames)]
        motion = torch.nn.functional.adaptive_avg_pool2d(torch.stack(rows), grid[1:])
    return motion[None]
