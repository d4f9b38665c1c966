from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import Image

from pipeline.plan.clips import plan_clips
from pipeline.values import PictureSpec
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video.picture import describe_picture, to_upright_rgb
from pipeline.video.resize import centre_crop, resize_picture, resized_shape
from pipeline.video_info import PicturePolicy
from tests.pipeline.video.reference import source_of
from tests.synthetic import make_video

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


# torch weighs with 16-bit integers where Pillow takes 22 bits, so a value now and then falls on the other side of one
# half.
# Small pictures of noise are the worst case: nearly one value in five there, one in three hundred on film.
MOST_LEVELS, MOST_VALUES = 2, 0.2


def expect_pillow(ours: np.ndarray, pillow: np.ndarray) -> None:
    difference = np.abs(ours.astype(int) - pillow.astype(int))
    assert difference.max() <= MOST_LEVELS
    assert (difference > 0).mean() <= MOST_VALUES


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(131, 97), (90, 301), (17, 23)])
@pytest.mark.parametrize("size", [(37, 53), (224, 224), (8, 5)])
def test_resizing_is_that_of_pillow(interpolation: str, shape: tuple[int, int], size: tuple[int, int]) -> None:
    spec = PictureSpec(
        resize_mode="exact",
        resize_height_px=size[0],
        resize_width_px=size[1],
        crop_height_px=size[0],
        crop_width_px=size[1],
        interpolation=interpolation,  # type: ignore[arg-type]
    )
    rgb = noise(*shape)
    expected = np.asarray(Image.fromarray(rgb).resize((size[1], size[0]), FILTERS[interpolation]))
    expect_pillow(resize_picture(rgb, shape, spec), expected)
    np.testing.assert_array_equal(resize_picture(rgb, shape, replace(spec, resizer="pillow")), expected)


@pytest.mark.parametrize("shape", [(131, 97), (97, 131), (64, 64), (333, 250)])
@pytest.mark.parametrize(("short", "crop"), [(71, 59), (59, 71), (64, 64)])
def test_shortest_edge_and_crop_follow_the_pillow_processors(shape: tuple[int, int], short: int, crop: int) -> None:
    from transformers.image_transforms import center_crop, get_resize_output_image_size

    spec = PictureSpec(
        resize_mode="shortest_edge",
        resize_height_px=short,
        resize_width_px=short,
        crop_height_px=crop,
        crop_width_px=crop,
    )
    rgb = noise(*shape)
    size = get_resize_output_image_size(rgb, size=short, default_to_square=False, input_data_format="channels_last")
    assert resized_shape(shape, spec) == tuple(size)
    resized = np.asarray(Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(centre_crop(resized, crop, crop), center_crop(resized, (crop, crop)))
    expect_pillow(resize_picture(rgb, shape, spec), center_crop(resized, (crop, crop)))


def arrow() -> np.ndarray:
    """48 x 80: red above, its left half bright, so that every turn and flip shows."""
    picture = np.full((48, 80, 3), 60, dtype=np.uint8)
    picture[:24] = (180, 40, 40)
    picture[:24, :40] = (250, 200, 200)
    return picture


@pytest.mark.parametrize(("counterclockwise_deg", "turns"), [(0, 0), (90, 1), (180, 2), (-90, -1)])
def test_the_display_matrix_is_applied(tmp_path: Path, counterclockwise_deg: int, turns: int) -> None:
    path = make_video(tmp_path / "video.mp4", frames=[arrow()] * 5, rotation_deg=counterclockwise_deg)
    info = scan_video(source_of(path))
    expected = np.rot90(arrow(), turns)
    assert (info.height_px, info.width_px) == expected.shape[:2]
    assert info.rotation_deg == -counterclockwise_deg % 360
    height, width = expected.shape[:2]
    spec = PictureSpec(
        resize_mode="exact", resize_height_px=height, resize_width_px=width, crop_height_px=height, crop_width_px=width
    )
    with open_video(timing_of(info)) as video:
        (clip,) = video.decode(plan_clips(info, fps=Fraction(1), clip_frames=1), spec)
    # h264 at its default quality, 4:2:0: flat areas come back to a few levels, edges do not.
    area = np.s_[4:-4:8, 4:-4:8]
    assert np.abs(clip.frames[0][area].astype(int) - expected[area]).mean() < 12


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_a_flip_comes_before_the_turn(mirrored: bool, rotation_deg: int) -> None:
    frame = av.VideoFrame.from_ndarray(arrow(), format="rgb24")
    policy = PicturePolicy(rotation_deg=rotation_deg, mirrored=mirrored, matrix="rgb", full_range=True)
    expected = Image.fromarray(arrow())
    if mirrored:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = expected.rotate(-rotation_deg, expand=True)
    np.testing.assert_array_equal(to_upright_rgb(frame, policy, VideoReformatter()), np.asarray(expected))


@pytest.mark.parametrize(
    ("matrix", "kr", "kb"), [("bt601", 0.299, 0.114), ("bt709", 0.2126, 0.0722), ("bt2020", 0.2627, 0.0593)]
)
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_follow_matrix_and_range(matrix: str, kr: float, kb: float, full_range: bool) -> None:
    y, u, v = 120, 90, 180
    frame = av.VideoFrame(16, 16, "yuv420p")
    for plane, value in zip(frame.planes, (y, u, v), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    luma, chroma = (y / 255, 255) if full_range else ((y - 16) / 219, 224)
    pb, pr = (u - 128) / chroma, (v - 128) / chroma
    red, blue = luma + 2 * (1 - kr) * pr, luma + 2 * (1 - kb) * pb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    policy = PicturePolicy(matrix=matrix, full_range=full_range)  # type: ignore[arg-type]
    rgb = to_upright_rgb(frame, policy, VideoReformatter())
    expected = np.clip(np.array([red, green, blue]) * 255, 0, 255)
    np.testing.assert_allclose(rgb[8, 8], expected, atol=2)


def test_pixels_that_are_not_square_widen_the_picture(shared_data: Path) -> None:
    path = shared_data / "videos/androidx_media/bbb_800x640_768kbps_30fps_avc_pyramid_3b.mp4"
    info = scan_video(source_of(path))
    assert info.picture.pixel_aspect == Fraction(64, 45)
    assert (info.width_px, info.height_px) == (round(800 * 64 / 45), 640)


def test_high_dynamic_range_is_recorded(shared_data: Path) -> None:
    names = {"hdr10-av1.mp4": "pq", "hlg10-color-test.mp4": "hlg", "sample.mkv": "sdr"}
    for name, transfer in names.items():
        info = scan_video(source_of(shared_data / "videos/androidx_media" / name))
        assert info.picture.transfer == transfer
        assert (transfer in info.picture_policy) == (transfer != "sdr")
        assert info.picture_policy == describe_picture(info.picture, info.pixel_format)
