"""Clips in which a labelled picture shows for a few frames in a part of real, unrelated video: saliency matters there.

A second insert, cut from another video, stands elsewhere in time and place, so that what is merely new or moving is not
what the label asks for.

Letters: K clips, N tokens of a clip, C channels, T frames, H x W patches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from jobs.bench.square import square
from pipeline.errors import InputError
from pipeline.inputs.named import Input, VideoSource
from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video.resize import resize_picture
from vtm import Grid

Frames = NDArray[np.uint8]


class EncodedFrames(NamedTuple):
    """What an encoder makes of T frames."""

    patches: Tensor
    """(T, H·W, C)."""
    saliency: Tensor
    """(T, H·W) float32: the encoder's own attention on each patch."""


Encode = Callable[[Frames], EncodedFrames]
"""(T, h, w, 3) uint8 frames to what an encoder makes of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedLayout:
    """The shape of a clip and of what is planted in it."""

    frames: int = 20
    side: int = 4
    """Tokens along each side of a frame."""
    insert_frames: int = 2
    insert_side: int = 2
    """Tokens along each side of the insert."""
    token_px: int = 28
    """Pixels along each side of a token: two patches of a ViT/14, whose tokens are averaged to keep the clips small."""

    @property
    def grid(self) -> Grid:
        """T, H, W."""
        return self.frames, self.side, self.side

    @property
    def side_px(self) -> int:
        """Pixels along each side of a frame."""
        return self.side * self.token_px


@dataclass(frozen=True, slots=True)
class Insert:
    """Where a picture stands: first frame, and row and column in tokens."""

    frame: int
    row: int
    column: int


@dataclass(frozen=True, eq=False)
class PlantedClips:
    """The clips of one split, encoded."""

    patches: Tensor
    """(K, N, C) float16."""
    motion: Tensor
    """(K, N) float32: mean absolute difference to the frame before, over the clip's mean."""
    saliency: Tensor
    """(K, N) float32: the encoder's own attention on each patch."""
    planted: Tensor
    """(K, N) bool: whether a patch shows the labelled picture."""
    target: Tensor
    """(K,) int64."""


def read_picture(path: Path, side_px: int) -> Frames:
    """A picture at one size; (side_px, side_px, 3)."""
    with Image.open(path) as image:
        rgb_HW3 = np.array(image.convert("RGB"))
    height, width, _ = rgb_HW3.shape
    return resize_picture(rgb_HW3, (height, width), square(side_px))


def read_frames(path: Path, side_px: int, fps: Fraction = Fraction(1)) -> Frames:
    """The frames of a video at one size; (T, side_px, side_px, 3)."""
    spec = square(side_px)
    info = scan_video(
        VideoSource(video_id=Input(uri=str(path)).unread_id, uri=str(path), size_bytes=path.stat().st_size)
    )
    with open_video(timing_of(info)) as opened:
        return np.concatenate([clip.frames for clip in opened.decode(plan_clips(info, fps=fps, clip_frames=60), spec)])


def read_scenes(folder: Path, layout: PlantedLayout, first: int, end: int) -> list[tuple[Frames, int]]:
    """The pictures of a folder of class folders at the insert's size, with their class numbers in order of name.

    Args:
        folder: of class folders.
        layout: shape of the insert.
        first: which pictures of each class, in order of name.
        end: those before this one.

    Raises:
        InputError: the folder holds no class folders with pictures.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    side_px = layout.insert_side * layout.token_px
    pictures = [
        (read_picture(path, side_px), label)
        for label, name in enumerate(classes)
        for path in sorted(name.glob("*.jpg"))[first:end]
    ]
    if not pictures:
        raise InputError(f"{folder} holds no pictures as CLASS/NAME.jpg")
    return pictures


def plant(
    scenes: Sequence[tuple[Frames, int]],
    videos: Sequence[Frames],
    layout: PlantedLayout,
    encode: Encode,
    seed: int,
) -> PlantedClips:
    """Make one clip of each picture.

    Args:
        scenes: pictures at the insert's size, with their classes.
        videos: frames at the clip's size, at least as many a video as a clip has; all clips come from them.
        layout: shape of clips and inserts.
        encode: called once for each video and once for the changed frames of each clip.
        seed: of places and times.
    """
    chance = random.Random(seed)
    encoded = [encode(video) for video in videos]
    made = [_plant_one(picture, videos, encoded, layout, encode, chance) for picture, _ in scenes]
    patches, motion, saliency, planted = (torch.stack(column) for column in zip(*made, strict=True))
    return PlantedClips(patches.half(), motion, saliency, planted, torch.tensor([label for _, label in scenes]))


def _plant_one(
    picture: Frames,
    videos: Sequence[Frames],
    encoded: Sequence[EncodedFrames],
    layout: PlantedLayout,
    encode: Encode,
    chance: random.Random,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    which, other = chance.sample(range(len(videos)), 2)
    start = chance.randrange(len(videos[which]) - layout.frames + 1)
    span = slice(start, start + layout.frames)
    frames = videos[which][span].copy()
    patches_TPC, saliency_TP = (of_video[span].clone() for of_video in encoded[which])
    scene, distractor = _two_places(layout, chance)
    _paste(frames, picture, scene, layout)
    _paste(frames, _cut(videos[other], layout, chance), distractor, layout)
    changed = [insert.frame + offset for insert in (scene, distractor) for offset in range(layout.insert_frames)]
    patches_TPC[changed], saliency_TP[changed] = encode(frames[changed])
    planted_THW = torch.zeros(layout.grid, dtype=torch.bool)
    rows, columns = (slice(first, first + layout.insert_side) for first in (scene.row, scene.column))
    planted_THW[scene.frame : scene.frame + layout.insert_frames, rows, columns] = True
    return patches_TPC.flatten(0, 1), motion_of(frames, layout), saliency_TP.flatten(), planted_THW.flatten()


def _two_places(layout: PlantedLayout, chance: random.Random) -> tuple[Insert, Insert]:
    """Two inserts that share no frame, the first before or after the second."""
    free = layout.frames - 2 * layout.insert_frames
    first = chance.randint(0, free)
    second = first + layout.insert_frames + chance.randint(0, free - first)
    last = layout.side - layout.insert_side
    inserts = [Insert(frame, chance.randint(0, last), chance.randint(0, last)) for frame in (first, second)]
    chance.shuffle(inserts)
    return inserts[0], inserts[1]


def _paste(frames: Frames, picture: Frames, insert: Insert, layout: PlantedLayout) -> None:
    side_px, top, left = len(picture), insert.row * layout.token_px, insert.column * layout.token_px
    frames[insert.frame : insert.frame + layout.insert_frames, top : top + side_px, left : left + side_px] = picture


def _cut(video: Frames, layout: PlantedLayout, chance: random.Random) -> Frames:
    side_px = layout.insert_side * layout.token_px
    frame = video[chance.randrange(len(video))]
    top, left = (chance.randint(0, length - side_px) for length in frame.shape[:2])
    cut: Frames = frame[top : top + side_px, left : left + side_px]
    return cut


def motion_of(frames: Frames, layout: PlantedLayout) -> Tensor:
    """(N,) float32: each patch's mean absolute difference to the frame before, over the clip's mean; first frame 0."""
    values_T = torch.from_numpy(frames.astype(np.float32))
    difference = (values_T[1:] - values_T[:-1]).abs().mean(dim=3)
    patches_THW = torch.nn.functional.avg_pool2d(difference, layout.token_px)
    motion_N = torch.cat((torch.zeros_like(patches_THW[:1]), patches_THW)).flatten()
    return motion_N / motion_N.mean().clamp_min(1e-6)


def split_in_time(
    videos: Sequence[Frames], layout: PlantedLayout, first_share: float
) -> tuple[list[Frames], list[Frames]]:
    """Cut each video in two, for training and for testing; parts shorter than a clip are left out."""
    cut = [(video[: int(len(video) * first_share)], video[int(len(video) * first_share) :]) for video in videos]
    return (
        [early for early, _ in cut if len(early) >= layout.frames],
        [late for _, late in cut if len(late) >= layout.frames],
    )
