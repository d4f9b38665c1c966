"""Clips spread over videos, decoded and encoded once for all settings, one in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.encode.clip_encoder import clip_seed, load_features, motion_on
from pipeline.encode.describe import describe_encoder
from pipeline.encode.devices import this_device
from pipeline.encode.features import ClipFeatures
from pipeline.errors import DecodeError
from pipeline.failed_range import FailedRange
from pipeline.inputs.addresses import unreadable_input
from pipeline.inputs.sources import find_inputs, identify
from pipeline.plan.clips import at_grid_times, plan_clips
from pipeline.run_description import EncoderDescription
from pipeline.settings import Recipe
from pipeline.values import ClipSpec, DecodedClip, PictureSpec
from pipeline.video import OpenVideo, open_video, scan_video, timing_of


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One clip before any merge, and what it took to come so far."""

    spec: ClipSpec
    features: ClipFeatures
    motion_1THW: Tensor | None
    """Of the codec or the frames, where a strategy asks for it."""
    decode_s: float
    encode_s: float
    motion_s: float
    """What decoding takes longer where motion is measured."""

    @property
    def seed(self) -> int:
        """Of everything that is drawn for the clip, as in a run."""
        return clip_seed(self.spec.clip_id)

    @property
    def length_s(self) -> float:
        """Seconds of video."""
        return (self.spec.end_ns - self.spec.start_ns) / 1e9


class Sampler:
    """An encoder, loaded, that samples clips of videos."""

    def __init__(self, recipe: Recipe, *, saliency: bool, motion: bool) -> None:
        """Load the encoder.

        Args:
            recipe: Of strategy `none`; what merges is measured afterwards.
            saliency: Whether a strategy reads the encoder's attention.
            motion: Whether a strategy reads motion.

        Raises:
            SettingsError: the encoder cannot be had.
        """
        self._recipe = recipe
        device = this_device("cuda" if torch.cuda.is_available() else "cpu")
        self.encoder: EncoderDescription
        self.encoder, self._picture = describe_encoder(recipe, device)
        self._features = load_features(recipe, self.encoder, device.kind)
        self._saliency, self._motion = saliency, motion

    def samples(self, inputs: Sequence[str], num_clips: int) -> Iterator[Sample | FailedRange]:
        """Clips spread evenly over each video that the inputs name; for one that cannot be read, why.

        Raises:
            InputError: the inputs name nothing.
        """
        for found in find_inputs(inputs):
            if isinstance(found, FailedRange):
                yield found
                continue
            try:
                yield from self._of_video(found.uri, num_clips)
            except DecodeError as error:
                yield unreadable_input(found.uri, error.failure, str(error))
            except OSError as error:
                yield unreadable_input(found.uri, "io", f"{found.uri}: {error}")

    def _of_video(self, uri: str, num_clips: int) -> Iterator[Sample]:
        info = scan_video(identify(uri))
        clips = plan_clips(info, fps=self._recipe.fps, clip_frames=self._recipe.clip_frames)
        chosen = np.unique(np.linspace(0, len(clips) - 1, min(num_clips, len(clips))).round().astype(int))
        with open_video(timing_of(info), self._picture.decoder) as video:
            for number in chosen:
                yield self._sample(video, clips[number])

    @torch.inference_mode()
    def _sample(self, video: OpenVideo, spec: ClipSpec) -> Sample:
        clip, decode_s = _decoded(video, spec, self._picture, motion=False)
        motion_s = 0.0
        if self._motion:
            moving, moving_s = _decoded(video, spec, self._picture, motion=True)
            clip, motion_s = replace(clip, motion=moving.motion), max(0.0, moving_s - decode_s)
        if self.encoder.frames_per_pass > 1:
            clip = at_grid_times(clip)
        began_s = time.perf_counter()
        features = self._features(clip.frames, saliency=self._saliency)
        encode_s = time.perf_counter() - began_s
        tubelet_frames = self.encoder.tubelet_frames
        motion = None if clip.motion is None else motion_on(features.grid, clip.motion, tubelet_frames)
        return Sample(spec, features, motion, decode_s, encode_s, motion_s)


def _decoded(video: OpenVideo, spec: ClipSpec, picture: PictureSpec, *, motion: bool) -> tuple[DecodedClip, float]:
    began_s = time.perf_counter()
    clip = next(iter(video.decode([spec], picture, motion=motion)))
    return clip, time.perf_counter() - began_s
