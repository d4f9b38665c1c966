"""What is planted where, with an encoder that shows it: a token is the mean colour of its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jobs.bench.planted import (
    EncodedFrames,
    Frames,
    PlantedClips,
    PlantedLayout,
    motion_of,
    plant,
    read_frames,
    read_scenes,
    split_in_time,
)
from pipeline.errors import InputError
from tests.synthetic import make_video

LAYOUT = PlantedLayout(frames=11, side=5, insert_frames=3, insert_side=2, token_px=4)
SCENE = (255, 0, 0)
SCENES = 7
LEVELS = (40, 80, 120)
"""The grey of each video, which tells an insert from where it stands."""


def mean_colour(frames: Frames) -> EncodedFrames:
    """Mean colours, (T, side², 3) values in steps that float16 holds; the red of each is its saliency."""
    pixels_T3HW = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    colour_TP3 = torch.nn.functional.avg_pool2d(pixels_T3HW, LAYOUT.token_px).flatten(2).transpose(1, 2)
    return EncodedFrames(colour_TP3, colour_TP3[..., 0])


def made(seed: int, layout: PlantedLayout = LAYOUT) -> PlantedClips:
    side_px = layout.insert_side * layout.token_px
    picture = np.full((side_px, side_px, 3), SCENE, dtype=np.uint8)
    videos = [np.full((13 + v, layout.side_px, layout.side_px, 3), level, np.uint8) for v, level in enumerate(LEVELS)]
    return plant([(picture, 3 * index % SCENES) for index in range(SCENES)], videos, layout, mean_colour, seed)


def frames_of(mark_N: Tensor) -> list[int]:
    return torch.nonzero(mark_N.view(LAYOUT.grid).any(dim=2).any(dim=1)).flatten().tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mask_is_where_the_picture_is(seed: int) -> None:
    clips = made(seed)
    assert clips.patches.dtype == torch.float16
    assert torch.equal(clips.planted, (clips.patches == torch.tensor(SCENE).half()).all(dim=2))
    assert torch.equal(clips.saliency, clips.patches[..., 0].float())
    shape = LAYOUT.insert_frames, LAYOUT.insert_side, LAYOUT.insert_side
    for planted_N in clips.planted:
        places = torch.nonzero(planted_N.view(LAYOUT.grid))
        assert (places.amax(dim=0) - places.amin(dim=0) + 1).tolist() == list(shape)
        assert len(places) == np.prod(shape)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_cut_from_another_video_stands_in_frames_of_its_own(seed: int) -> None:
    clips = made(seed)
    for level_N, planted_N in zip(clips.patches[..., 2], clips.planted, strict=True):
        home = level_N.mode().values
        other_N = ~planted_N & (level_N != home)
        assert home.item() in LEVELS
        assert level_N[other_N].unique().tolist() in [[level] for level in LEVELS if level != home]
        assert int(other_N.sum()) == int(planted_N.sum())
        assert len(frames_of(other_N)) == len(frames_of(planted_N)) == LAYOUT.insert_frames
        assert not set(frames_of(other_N)) & set(frames_of(planted_N))


def test_the_tightest_clip_still_holds_both() -> None:
    tight = PlantedLayout(frames=6, side=5, insert_frames=3, insert_side=5, token_px=4)
    clips = made(4, tight)
    firsts = {planted_N.view(tight.grid)[0, 0, 0].item() for planted_N in clips.planted}
    assert clips.planted.sum(dim=1).tolist() == [3 * 25] * SCENES
    assert firsts == {True, False}, "the picture comes first in some clips and last in others"


def test_a_seed_is_the_clips_and_another_seed_others() -> None:
    first, again, other = made(1), made(1), made(2)
    for name in ("patches", "motion", "saliency", "planted", "target"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.planted, other.planted)
    assert not torch.equal(first.patches, other.patches)


def test_classes_are_kept_in_the_order_of_the_pictures() -> None:
    target_K = made(0).target
    assert target_K.dtype == torch.int64
    assert target_K.tolist() == [3 * index % SCENES for index in range(SCENES)]


def test_motion_is_the_change_to_the_frame_before_over_its_mean() -> None:
    frames = np.zeros((LAYOUT.frames, LAYOUT.side_px, LAYOUT.side_px, 3), dtype=np.uint8)
    frames[4:, :4, 4:8] = 90
    motion_THW = motion_of(frames, LAYOUT).view(LAYOUT.grid)
    assert torch.nonzero(motion_THW).tolist() == [[4, 0, 1]]
    assert motion_THW.mean().item() == pytest.approx(1)
    assert motion_of(frames[:4], LAYOUT).sum() == 0


def test_videos_are_cut_in_time_and_short_parts_left_out() -> None:
    lengths = (40, 27, 12)
    videos = [np.arange(length, dtype=np.uint8)[:, None, None, None] for length in lengths]
    early, late = split_in_time(videos, LAYOUT, first_share=0.5)
    assert [(part[0].item(), part[-1].item()) for part in early] == [(0, 19), (0, 12)]
    assert [(part[0].item(), part[-1].item()) for part in late] == [(20, 39), (13, 26)]


def test_pictures_are_read_by_class_in_order_of_name(tmp_path: Path) -> None:
    for name, level in (("b/2.jpg", 200), ("b/1.jpg", 100), ("a/9.jpg", 30), ("b/3.jpg", 250)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (31, 17), (level, level, level)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no class")
    scenes = read_scenes(tmp_path, LAYOUT, 0, 2)
    assert [label for _, label in scenes] == [0, 1, 1]
    assert [picture.shape for picture, _ in scenes] == [(8, 8, 3)] * 3
    assert [round(float(picture.mean()), -1) for picture, _ in scenes] == [30, 100, 200]
    for folder in (tmp_path / "a", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="holds no pictures"):
            read_scenes(folder, LAYOUT, 0, 2)


def test_frames_are_read_of_a_video_of_any_name(tmp_path: Path) -> None:
    """A name with underscores is not taken for the id of a part of a video."""
    frames = read_frames(make_video(tmp_path / "test_video_30s.mp4", frames=51, fps=25), 56)
    assert frames.shape == (3, 56, 56, 3)
