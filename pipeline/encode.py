"""Decoded clips to token sets: the encoder, the merge, and the numbers that go with them. Imports torch and vtm.

Letters: T frames, H x W patch grid, N = T*H*W source patches, M merged tokens, D channels.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import EncodeError, SettingsError
from pipeline.settings import EncoderDescription, Recipe
from pipeline.values import DecodedClip, PictureSpec, TokenSet
from vtm import MergeError, MergePlan, encoders, fidelity, merge_plan
from vtm.encoders import EncoderError, ImageSpec, load_encoder

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def describe_encoder(recipe: Recipe, device: str) -> tuple[EncoderDescription, PictureSpec]:
    """What a run must know of its encoder before anything starts, without loading its weights.

    Raises:
        SettingsError: the encoder cannot be had, or lacks something.
    """
    try:
        known = encoders.describe_encoder(recipe.encoder, layer=recipe.layer, revision=recipe.revision)
    except EncoderError as error:
        raise SettingsError(str(error)) from error
    description = EncoderDescription(
        name=recipe.encoder,
        revision=recipe.revision,
        weights_sha256=known.weights_sha256,
        dim=known.dim,
        compute_dtype=resolve_compute_dtype(recipe.compute_dtype, device),
    )
    return description, picture_spec(known.image)


def picture_spec(image: ImageSpec) -> PictureSpec:
    """The preprocessor's geometry, as the decode side takes it."""
    return PictureSpec(**{name: getattr(image, name) for name in PictureSpec.__slots__})


def picture_json(picture: PictureSpec) -> dict[str, Any]:
    """A picture spec as JSON data."""
    return asdict(picture)


def resolve_compute_dtype(asked: str, device: str) -> str:
    """The arithmetic's dtype: what was asked, or bfloat16 where the device computes in it natively."""
    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    native = torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16")
    return "bfloat16" if native else "float32"


def pick_device(gpus: int | None) -> str:
    """`cuda` where there is a GPU and it may be used, else `cpu`."""
    return "cuda" if gpus != 0 and torch.cuda.is_available() else "cpu"


def clip_seed(clip_id: str) -> int:
    """The seed of everything that is sampled for a clip."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8], "big") >> 1


class ClipEncoder:
    """A loaded encoder that turns decoded clips into token sets."""

    def __init__(self, recipe: Recipe, description: EncoderDescription, device: str) -> None:
        self.recipe = recipe
        try:
            self.encoder = load_encoder(
                recipe.encoder,
                layer=recipe.layer,
                revision=recipe.revision,
                dtype=TORCH_DTYPES[description.compute_dtype],
                device=device,
            )
        except EncoderError as error:
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
        try:
            patches_1ND, keys_1Nd, saliency_1N = self._features(clip.frames)
            grid = (len(clip.frames), *self.encoder.grid_hw)
            plan = self._plan(keys_1Nd, grid, clip, saliency_1N)
        except (MergeError, RuntimeError) as error:
            raise EncodeError(f"clip {clip.spec.clip_id} cannot be encoded: {error}") from error
        merged_1MD = plan.sum(patches_1ND) / plan.sizes[..., None]
        tokens, scale = _stored(merged_1MD[0], self.recipe.dtype)
        group_dtype = np.uint16 if plan.num_groups <= 1 << 16 else np.uint32
        pooled_D = torch.nn.functional.normalize(patches_1ND[0].mean(dim=0), dim=0)
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
            tokens_dtype=self.recipe.dtype,
            tokens_scale=scale,
            sizes=plan.sizes[0].cpu().numpy(),
            centers=plan.centers(grid)[0].cpu().numpy(),
            group=plan.group[0].cpu().numpy().astype(group_dtype),
            pooled=pooled_D.cpu().numpy(),
            fidelity=float(fidelity(patches_1ND, plan, merged_1MD)[0]),
            motion_source=clip.motion_source,
            damaged_frames=clip.damaged_frames,
        )

    def _features(self, frames_THW3: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Patches and keys of all frames, (1, N, ·), from batches of one fixed shape.

        The last batch is padded: kernels round differently for other shapes, and a clip's bytes may not
        depend on how its frames were grouped.
        """
        size = self.recipe.batch_frames
        want_saliency = self.recipe.strategy == "saliency"
        patches, keys, saliency = [], [], []
        for start in range(0, len(frames_THW3), size):
            block = frames_THW3[start : start + size]
            count = len(block)
            if count < size:
                padding = np.zeros((size - count, *block.shape[1:]), dtype=np.uint8)
                block = np.concatenate((block, padding))
            out = self.encoder(self.encoder.normalise(torch.from_numpy(block)), saliency=want_saliency)
            patches.append(out.patches[:count])
            keys.append(out.keys[:count])
            if out.saliency is not None:
                saliency.append(out.saliency[:count])
        patches_1ND = torch.cat(patches).flatten(0, 1)[None].float()
        keys_1Nd = torch.cat(keys).flatten(0, 1)[None]
        return patches_1ND, keys_1Nd, torch.cat(saliency).flatten()[None] if saliency else None

    def _plan(
        self, keys_1Nd: Tensor, grid: tuple[int, int, int], clip: DecodedClip, saliency_1N: Tensor | None
    ) -> MergePlan:
        recipe = self.recipe
        motion = None if clip.motion is None else torch.from_numpy(clip.motion)[None].to(keys_1Nd.device)
        plan = merge_plan(
            keys_1Nd,
            strategy=recipe.strategy,  # type: ignore[arg-type]  # checked when the recipe was made
            grid=grid,
            partition_factor=recipe.partition_factor,
            merge_share=recipe.merge_share,
            keep=None if recipe.strategy == "none" else recipe.share_kept,
            num_tokens=recipe.tokens_per_clip,
            seed=clip_seed(clip.spec.clip_id),
            motion=motion,
            saliency=saliency_1N,
        )
        return plan.ordered_by_center(grid)


def _stored(tokens_MD: Tensor, dtype: str) -> tuple[NDArray[np.generic], NDArray[np.float32] | None]:
    """Tokens as they are written: bfloat16 as its bits, int8 with one scale a token."""
    if dtype == "int8":
        scale_M = tokens_MD.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        return (tokens_MD / scale_M[:, None]).round().to(torch.int8).cpu().numpy(), scale_M.cpu().numpy()
    stored = tokens_MD.to(TORCH_DTYPES[dtype]).contiguous().cpu()
    if dtype == "bfloat16":
        return stored.view(torch.uint16).numpy(), None
    return stored.numpy(), None
