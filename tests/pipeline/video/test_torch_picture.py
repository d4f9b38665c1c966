"""Pictures that torch makes of decoded planes, on a CPU: those of swscale to some levels, and right colours exactly."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.plan.clips import plan_clips
from pipeline.values import DecoderName, PictureSpec
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video.picture import PictureMaker
from pipeline.video.resize import resize_picture
from pipeline.video.torch_picture import TorchPictureMaker, can_show, planes_of, small_picture, to_rgb
from pipeline.video_info import ColourMatrix, PicturePolicy
from tests.pipeline.video.reference import SMALL, source_of
from tests.synthetic import make_video, number_of, picture

CPU = torch.device("cpu")
MOST_LEVELS, MEAN_LEVELS = 4, 1.6
"""swscale's fast conversion rounds down in three places: it is a level darker, in the mean, than the formula."""


def square(side_px: int, **changes: Any) -> PictureSpec:
    sides = dict.fromkeys(("resize_height_px", "resize_width_px", "crop_height_px", "crop_width_px"), side_px)
    return PictureSpec(resize_mode="exact", **sides, **changes)


def coded_frame(rgb: NDArray[np.uint8], pixels: str = "yuv420p") -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixels)


def flat(values: tuple[int, int, int], pixels: str = "yuv420p") -> av.VideoFrame:
    frame = av.VideoFrame(32, 32, pixels)
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


# Rec. ITU-R BT.601 and BT.709: 100 % bars, coded in 8 bits of the limited range.
@pytest.mark.parametrize(
    ("matrix", "coded", "rgb"),
    [
        ("bt601", (235, 128, 128), (255, 255, 255)),
        ("bt601", (81, 90, 240), (255, 0, 0)),
        ("bt601", (145, 54, 34), (0, 255, 0)),
        ("bt709", (63, 102, 240), (255, 0, 0)),
        ("bt709", (173, 42, 26), (0, 255, 0)),
        ("bt709", (32, 240, 118), (0, 0, 255)),
        ("bt709", (16, 128, 128), (0, 0, 0)),
        ("bt2020", (74, 97, 240), (255, 0, 0)),
    ],
)
def test_colour_bars(matrix: ColourMatrix, coded: tuple[int, int, int], rgb: tuple[int, int, int]) -> None:
    maker = TorchPictureMaker(PicturePolicy(matrix=matrix), square(32), VideoReformatter(), CPU)
    np.testing.assert_allclose(maker.make(flat(coded))[16, 16].astype(int), rgb, atol=2)


def test_the_full_range_is_taken_as_it_is() -> None:
    policy = PicturePolicy(matrix="bt709", full_range=True)
    maker = TorchPictureMaker(policy, square(32), VideoReformatter(), CPU)
    for level in (0, 7, 128, 255):
        np.testing.assert_array_equal(maker.make(flat((level, 128, 128), "yuvj420p"))[16, 16], [level] * 3)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p"])
def test_planes_keep_their_values(pixels: str) -> None:
    frame = coded_frame(picture(5, size=(62, 94)), pixels)
    policy = PicturePolicy(full_range=pixels == "yuvj420p")
    luma, chroma = planes_of(frame, policy, VideoReformatter())
    y, u, v = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    )
    np.testing.assert_array_equal(luma, y)
    np.testing.assert_array_equal(chroma[..., 0], u)
    np.testing.assert_array_equal(chroma[..., 1], v)


def test_ten_bits_keep_their_values() -> None:
    frame = coded_frame(picture(5, size=(62, 94)), "yuv420p10le")
    luma, _ = planes_of(frame, PicturePolicy(), VideoReformatter())
    plane = frame.planes[0]
    coded = np.frombuffer(memoryview(plane), np.uint16).reshape(-1, plane.line_size // 2)[:, : plane.width]
    np.testing.assert_array_equal(luma.to(torch.int32), coded.astype(int) << 6)
    deep = to_rgb(*planes_of(frame, PicturePolicy(), VideoReformatter()), PicturePolicy())
    shallow = to_rgb(
        *planes_of(coded_frame(picture(5, size=(62, 94))), PicturePolicy(), VideoReformatter()), PicturePolicy()
    )
    assert float((deep - shallow).abs().mean()) < 1.5


@pytest.mark.parametrize("size", [(61, 93), (62, 93), (61, 94)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    luma = torch.arange(size[0] * size[1], dtype=torch.uint8).reshape(size)
    chroma = torch.randint(0, 256, (size[0] // 2, size[1] // 2, 2), dtype=torch.uint8)
    rgb = to_rgb(luma, chroma, PicturePolicy())
    assert rgb.shape == (3, *size)
    padded = torch.cat([chroma, chroma[:, -1:]], 1)
    padded = torch.cat([padded, padded[-1:]])
    np.testing.assert_array_equal(rgb, to_rgb(luma, padded, PicturePolicy()))


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "smpte240m", "fcc"])
def test_pictures_are_those_of_swscale(rotation_deg: int, mirrored: bool, matrix: ColourMatrix) -> None:
    frame = coded_frame(picture(1234, size=(132, 98)))
    policy = PicturePolicy(
        rotation_deg=rotation_deg, mirrored=mirrored, matrix=matrix, pixel_aspect=Fraction(4, 3), full_range=False
    )
    for spec in (square(56), replace(SMALL, interpolation="bilinear")):
        wanted = PictureMaker(policy, spec, VideoReformatter()).make(frame).astype(int)
        ours = TorchPictureMaker(policy, spec, VideoReformatter(), CPU).make(frame).astype(int)
        assert ours.shape == wanted.shape
        assert np.abs(ours - wanted).max() <= MOST_LEVELS
        assert np.abs(ours - wanted).mean() <= MEAN_LEVELS


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_nothing_waits_for_the_device(dtype: torch.dtype) -> None:
    """On `meta` no value can be read, and tensors of two devices cannot be mixed."""
    luma = torch.empty(132, 98, dtype=dtype, device="meta")
    chroma = torch.empty(66, 49, 2, dtype=dtype, device="meta")
    policy = PicturePolicy(rotation_deg=90, mirrored=True, matrix="bt2020", pixel_aspect=Fraction(4, 3))
    small = small_picture(luma, chroma, policy, square(56))
    assert (tuple(small.shape), small.dtype, small.device.type) == ((56, 56, 3), torch.uint8, "meta")


def test_edges_do_not_ring_twice() -> None:
    """Between the two steps of the resize values are held to 0 to 255, as Pillow does: 20 levels apart without it."""
    dots = np.zeros((132, 98, 3), dtype=np.uint8)
    dots[::7, ::5] = dots[::11] = 255
    frame, policy = coded_frame(dots, "yuvj420p"), PicturePolicy(full_range=True)
    full = to_rgb(*planes_of(frame, policy, VideoReformatter()), policy).to(torch.uint8).permute(1, 2, 0).numpy()
    wanted = resize_picture(np.ascontiguousarray(full), (132, 98), square(56)).astype(int)
    ours = TorchPictureMaker(policy, square(56), VideoReformatter(), CPU).make(frame).astype(int)
    assert np.abs(ours - wanted).max() <= 2


@pytest.mark.parametrize(
    ("policy", "spec", "shown"),
    [
        ({}, {}, True),
        ({"matrix": "rgb"}, {}, False),
        ({"matrix": "ycgco"}, {}, False),
        ({"transfer": "hlg", "matrix": "bt2020"}, {}, True),
        ({"transfer": "hlg", "matrix": "bt2020"}, {"tonemap": True}, False),
        ({"interlaced": True}, {}, True),
        ({"interlaced": True}, {"deinterlace": True}, False),
        ({"alpha": True}, {}, True),
        ({"alpha": True}, {"alpha_background": (0, 0, 0)}, False),
    ],
)
def test_what_it_leaves_to_swscale(policy: dict[str, Any], spec: dict[str, Any], shown: bool) -> None:
    assert can_show(PicturePolicy(**policy), square(32, **spec)) is shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="its arithmetic on a CPU")
def test_a_reader_without_a_gpu_sees_the_frames_of_a_run(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=53, gop=17, bframes=2, size=(64, 96))
    info = scan_video(source_of(path))
    specs = plan_clips(info, fps=Fraction(7), clip_frames=5)

    def frames(decoder: DecoderName) -> NDArray[np.uint8]:
        with open_video(timing_of(info), decoder) as video:
            return np.concatenate([clip.frames for clip in video.decode(specs, replace(square(48), decoder=decoder))])

    ours, wanted = frames("nvdec"), frames("libav")
    assert [number_of(rgb) for rgb in ours] == [number_of(rgb) for rgb in wanted]
    assert 0 < np.abs(ours.astype(int) - wanted.astype(int)).max() <= MOST_LEVELS
    np.testing.assert_array_equal(ours, frames("nvdec"))
