from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.plan.clips import plan_clips
from pipeline.values import DecodedClip, PictureSpec
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video.motion import camera_motion, picture_differences
from tests.pipeline.video.reference import source_of
from tests.synthetic import make_video

SPEC = PictureSpec(
    resize_mode="exact", resize_height_px=96, resize_width_px=160, crop_height_px=96, crop_width_px=160, patch_px=32
)
ROUNDING = 1e-6
"""Of luma in float32: kernels round the ends of a row in another order than its middle."""


def scene(number: int, *, pan_px: int, move_px: int) -> NDArray[np.uint8]:
    """Noise that pans, with a square of other noise that moves against it in the left third."""
    noise = np.random.default_rng(7).integers(0, 255, (24, 160, 3)).repeat(8, axis=0).repeat(8, axis=1)
    still = np.random.default_rng(8).integers(0, 255, (6, 6, 3)).repeat(8, axis=0).repeat(8, axis=1)
    picture = noise[:192, 200 + pan_px * number :][:, :320].astype(np.uint8).copy()
    top = 20 + move_px * number
    picture[top : top + 48, 24:72] = still
    return picture


def decode_with_motion(path: Path) -> list[DecodedClip]:
    info = scan_video(source_of(path))
    with open_video(timing_of(info)) as video:
        return list(video.decode(plan_clips(info, fps=Fraction(5), clip_frames=4), SPEC, motion=True))


# The last encoder's search is coarse: its vectors on the panning part are noisy.
CODECS = [("libx264", "mp4", {}, 3.0), ("mpeg4", "avi", {"b": "4M"}, 3.0), ("mpeg2video", "ts", {"b": "4M"}, 1.3)]


@pytest.mark.parametrize(("codec", "suffix", "options", "ratio"), CODECS, ids=[codec[0] for codec in CODECS])
def test_what_moves_against_a_panning_camera_stands_out(
    tmp_path: Path, codec: str, suffix: str, options: dict[str, str], ratio: float
) -> None:
    pictures = [scene(i, pan_px=3, move_px=2) for i in range(40)]
    for clip in decode_with_motion(
        make_video(tmp_path / f"video.{suffix}", frames=pictures, codec=codec, gop=50, options=options)
    ):
        assert clip.motion_source == "codec"
        assert clip.motion is not None
        assert clip.motion.shape == (len(clip.frames), 3, 5)
        moving, rest = clip.motion[:, :, 0:2].mean(), clip.motion[:, :, 2:].mean()
        assert moving > ratio * rest
        assert np.array_equal(clip.motion[0], clip.motion[1])


def test_pictures_stand_in_where_the_codec_has_no_vectors(tmp_path: Path) -> None:
    pictures = [scene(i, pan_px=0, move_px=2) for i in range(40)]
    path = make_video(
        tmp_path / "video.webm", frames=pictures, codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}
    )
    for clip in decode_with_motion(path):
        assert clip.motion_source == "frames"
        assert clip.motion is not None
        assert clip.motion[:, :, 0:2].mean() > 5 * clip.motion[:, :, 3:].mean()


def test_the_camera_is_what_most_blocks_follow() -> None:
    place = np.stack(np.meshgrid(np.arange(8.0, 320, 16), np.arange(8.0, 192, 16)), axis=-1).reshape(-1, 2)
    move = place @ np.array([[0.02, 0.01], [-0.01, 0.02]]) + (5, -3)
    expected = move.copy()
    move[::9] += (11, 7)
    np.testing.assert_allclose(camera_motion(place, move), expected, atol=1e-6)


def test_a_fade_is_no_motion() -> None:
    pictures = np.stack([np.full((6, 10, 3), 40 * i, dtype=np.uint8) for i in range(3)])
    assert picture_differences(pictures, np.arange(3) * 10**9, (2, 5)).max() < ROUNDING
