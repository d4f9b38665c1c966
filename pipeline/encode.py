"""Decoded clips to token sets: the encoder, the merge, and the numbers that go with them. Imports torch and vtm.

Letters: T frames, H x W patch grid, N = T*H*W source patches, K tokens that the encoder leaves (N where it merges
nothing inside), M merged tokens, D channels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.describe import TORCH_DTYPES
from pipeline.errors import EncodeError, SettingsError
from pipeline.settings import EncoderDescription, Recipe
from pipeline.values import DecodedClip, TokenSet
from vtm import Grid, MergeError, MergePlan, Strategy, fidelity, identity_plan, merge_plan
from vtm.budget import Budget
from vtm.encoders import EncoderError, EncoderOutput, load_encoder
from vtm.network import NetworkError, SaliencyScorer, VideoTokenMerging, load_network, load_scorer, stored_kind


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """A clip through the encoder, a batch of one."""

    patches_1KD: Tensor
    """float32."""
    keys_1Kd: Tensor
    saliency_1K: Tensor | None
    inside: MergePlan | None
    """Which token stands for which patch, where the encoder merged inside."""


@dataclass(frozen=True, slots=True, eq=False)
class _Merged:
    """What a clip becomes: tokens, and the plan from the N source patches to them."""

    tokens_1MD: Tensor
    plan: MergePlan


def clip_seed(clip_id: str) -> int:
    """The seed of everything that is sampled for a clip."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8], "big") >> 1


class ClipEncoder:
    """A loaded encoder that turns decoded clips into token sets."""

    def __init__(self, recipe: Recipe, description: EncoderDescription, device: str) -> None:
        self._recipe = recipe
        self._network: VideoTokenMerging | None = None
        self._scorer: SaliencyScorer | None = None
        try:
            self._encoder = load_encoder(
                recipe.encoder,
                layer=recipe.layer,
                revision=recipe.revision,
                dtype=TORCH_DTYPES[description.compute_dtype],
                device=device,
                encoder_keep=recipe.encoder_keep,
            )
            if recipe.vtm is not None and stored_kind(recipe.vtm) == "network":
                self._network = load_network(recipe.vtm, device)
            elif recipe.vtm is not None:
                self._scorer = load_scorer(recipe.vtm, device)
        except (EncoderError, NetworkError) as error:
            raise SettingsError(str(error)) from error

    @torch.inference_mode()
    def encode(self, clip: DecodedClip, uri: str) -> TokenSet:
        """Encode and merge one clip.

        Args:
            clip: Frames at the encoder's size.
            uri: Address of the video, for the record.

        Raises:
            EncodeError: the encoder or the merge failed on good frames.
        """
        grid: Grid = (len(clip.frames), *self._encoder.grid_hw)
        try:
            features = self._features(clip.frames)
            merged = self._merge(features, grid, clip)
        except (MergeError, NetworkError, RuntimeError) as error:
            raise EncodeError(f"clip {clip.spec.clip_id} cannot be encoded: {error}") from error
        plan = merged.plan
        sources_1ND = features.patches_1KD if features.inside is None else features.inside.spread(features.patches_1KD)
        stand_ins = merged.tokens_1MD if self._network is None else plan.mean(sources_1ND)
        tokens, scale = _stored(merged.tokens_1MD[0], self._recipe.dtype)
        # The mean over all patches is the mean of the tokens weighted by their sizes; a network's tokens are no means.
        weights_M1 = plan.sizes[0][:, None].float()
        pooled_D = torch.nn.functional.normalize((merged.tokens_1MD[0] * weights_M1).sum(dim=0), dim=0)
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
            group=plan.group[0].cpu().numpy().astype(np.uint16 if plan.num_groups <= 1 << 16 else np.uint32),
            pooled=pooled_D.cpu().numpy(),
            fidelity=float(fidelity(sources_1ND, plan, stand_ins)[0]),
            motion_source=clip.motion_source,
            damaged_frames=clip.damaged_frames,
        )

    def _features(self, frames_THW3: NDArray[np.uint8]) -> _Features:
        """The clip's frames through the encoder, in batches of one fixed shape.

        The last batch is padded: kernels round differently for other shapes, and a clip's bytes may not depend on
        how its frames were grouped.
        """
        size = self._recipe.batch_frames
        outputs: list[tuple[EncoderOutput, int]] = []
        for start in range(0, len(frames_THW3), size):
            block = frames_THW3[start : start + size]
            count = len(block)
            if count < size:
                block = np.concatenate((block, np.zeros((size - count, *block.shape[1:]), dtype=np.uint8)))
            pixels = self._encoder.normalise(torch.from_numpy(block))
            outputs.append((self._encoder(pixels, saliency=self._recipe.strategy == "saliency"), count))
        plans = [(out.plan, count) for out, count in outputs if out.plan is not None]
        saliency = [out.saliency[:count] for out, count in outputs if out.saliency is not None]
        return _Features(
            patches_1KD=torch.cat([out.patches[:count] for out, count in outputs]).flatten(0, 1)[None].float(),
            keys_1Kd=torch.cat([out.keys[:count] for out, count in outputs]).flatten(0, 1)[None],
            saliency_1K=torch.cat(saliency).flatten()[None] if saliency else None,
            inside=_side_by_side(plans) if plans else None,
        )

    def _merge(self, features: _Features, grid: Grid, clip: DecodedClip) -> _Merged:
        """Merge over the whole clip, by the network where there is one."""
        seed = clip_seed(clip.spec.clip_id)
        if self._network is not None:
            tokens_1MD, plan = self._network.tokens(features.patches_1KD, grid, seeds=[seed])
            order_1M = _order_by_center(plan, grid)
            return _Merged(tokens_1MD.gather(1, order_1M[..., None].expand_as(tokens_1MD)), plan.reorder(order_1M))
        later = self._plan(features, grid, clip, seed)
        inside = features.inside
        whole = later if inside is None else inside.then(later)
        plan = whole.ordered_by_center(grid)
        sources_1ND = features.patches_1KD if inside is None else inside.spread(features.patches_1KD)
        return _Merged(plan.sum(sources_1ND) / plan.sizes[..., None], plan)

    def _plan(self, features: _Features, grid: Grid, clip: DecodedClip, seed: int) -> MergePlan:
        recipe = self._recipe
        total, left = grid[0] * grid[1] * grid[2], features.keys_1Kd.shape[1]
        if recipe.strategy == "none":
            return identity_plan(1, left, features.keys_1Kd.device)
        keep, num_tokens = recipe.share_kept, recipe.tokens_per_clip
        if features.inside is not None and keep is not None:
            # The share is one of the source patches, of which the encoder has left a part.
            keep, num_tokens = None, min(left, Budget(keep=keep).targets(total))
        saliency = features.saliency_1K
        if self._scorer is not None:
            read = features.keys_1Kd if self._scorer.reads == "keys" else features.patches_1KD
            saliency = self._scorer(read, _grid_of(features, grid))
        return merge_plan(
            features.keys_1Kd,
            strategy=cast(Strategy, recipe.strategy),
            grid=_grid_of(features, grid),
            partition_factor=recipe.partition_factor,
            merge_share=recipe.merge_share,
            keep=keep,
            num_tokens=num_tokens,
            seed=seed,
            motion=None if clip.motion is None else torch.from_numpy(clip.motion)[None],
            saliency=saliency,
            features=features.patches_1KD,
        )


def _grid_of(features: _Features, grid: Grid) -> Grid:
    """The grid of the tokens to merge: tokens that the encoder has merged lie in a row in their frame."""
    return grid if features.inside is None else (grid[0], features.keys_1Kd.shape[1] // grid[0], 1)


def _side_by_side(plans: list[tuple[MergePlan, int]]) -> MergePlan:
    """Plans of single frames as one plan of the clip."""
    group_TP = torch.cat([plan.group[:count] for plan, count in plans])
    targets_TQ = torch.cat([plan.targets[:count] for plan, count in plans])
    frame_T1 = torch.arange(len(group_TP), device=group_TP.device)[:, None]
    groups, patches = targets_TQ.shape[1], group_TP.shape[1]
    return MergePlan(
        group=(group_TP + frame_T1 * groups).flatten()[None],
        num_groups=len(group_TP) * groups,
        targets=(targets_TQ + frame_T1 * patches).flatten()[None],
    )


def _order_by_center(plan: MergePlan, grid: Grid) -> Tensor:
    """(1, M) the old number of each new group in order of centre time, then y, then x."""
    ordered = plan.ordered_by_center(grid)
    return plan.group.gather(1, ordered.targets)


def _stored(tokens_MD: Tensor, dtype: str) -> tuple[NDArray[np.generic], NDArray[np.float32] | None]:
    """Tokens as they are written: bfloat16 as its bits, int8 with one scale a token."""
    if dtype == "int8":
        scale_M = tokens_MD.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        return (tokens_MD / scale_M[:, None]).round().to(torch.int8).cpu().numpy(), scale_M.cpu().numpy()
    stored = tokens_MD.to(TORCH_DTYPES[dtype]).contiguous().cpu()
    if dtype == "bfloat16":
        return stored.view(torch.uint16).numpy(), None
    return stored.numpy(), None
