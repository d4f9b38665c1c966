"""What the user may choose to do with pictures, on pixels whose right values are known without a decoder."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.plan.clips import at_grid_times, plan_clips
from pipeline.values import PictureSpec
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video.colour import tonemap
from pipeline.video.picture import PictureMaker, decide_picture
from pipeline.video_info import PicturePolicy
from tests.pipeline.video.reference import SMALL, source_of
from tests.synthetic import make_video, number_of, picture

SQUARE = PictureSpec(
    resize_mode="exact", resize_height_px=32, resize_width_px=32, crop_height_px=32, crop_width_px=32, patch_px=8
)


def first_picture(path: Path, spec: PictureSpec) -> NDArray[np.uint8]:
    info = scan_video(source_of(path))
    with open_video(timing_of(info)) as video:
        clip, *_ = video.decode(plan_clips(info, fps=Fraction(1), clip_frames=1), spec)
    return clip.frames[0]


def planes(values: tuple[int, ...], pixels: str) -> av.VideoFrame:
    frame = av.VideoFrame(32, 32, pixels)
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


@pytest.mark.parametrize("full_range", [True, False])
@pytest.mark.parametrize("rgb", [(210, 82, 106), (20, 200, 240), (128, 128, 128)])
def test_ycgco(rgb: tuple[int, int, int], full_range: bool) -> None:
    """H.273, equations 74 to 76: the colours that went in come out."""
    red, green, blue = rgb
    luma, cg, co = (red + 2 * green + blue) / 4, (2 * green - red - blue) / 4, (red - blue) / 2
    if full_range:
        coded = luma, cg + 128, co + 128
    else:
        coded = 16 + luma * 219 / 255, cg * 224 / 255 + 128, co * 224 / 255 + 128
    frame = planes(tuple(round(value) for value in coded), "yuv444p")
    policy = PicturePolicy(matrix="ycgco", full_range=full_range)
    shown = PictureMaker(policy, SQUARE, VideoReformatter()).make(frame)
    np.testing.assert_allclose(shown[16, 16], rgb, atol=3)


@pytest.mark.parametrize("code", [11, 14, 16])
def test_colours_that_cannot_be_shown_are_refused_by_name(tmp_path: Path, code: int) -> None:
    with av.open(str(make_video(tmp_path / "video.mp4", frames=3))) as container:
        frame = next(container.decode(video=0))
        frame.colorspace = code
        with pytest.raises(DecodeError, match="matrix") as error:
            decide_picture(frame, container.streams.video[0])
    assert error.value.failure == "unsupported"


def test_dolby_vision_alone_is_refused_by_name(tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "x265-params": "log-level=none"}
    path = make_video(tmp_path / "video.mp4", frames=3, codec="libx265", options=options)
    data = path.read_bytes()
    assert b"hev1" in data
    path.write_bytes(data.replace(b"hev1", b"dvhe"))
    with pytest.raises(DecodeError, match="Dolby Vision") as error:
        scan_video(source_of(path))
    assert error.value.failure == "unsupported"


def test_transparency_over_a_background(tmp_path: Path) -> None:
    """A half transparent red in a codec that keeps every value."""
    rgba = np.zeros((32, 32, 4), dtype=np.uint8)
    rgba[:] = (200, 40, 60, 128)
    path = tmp_path / "video.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("qtrle", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "argb"
        frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = scan_video(source_of(path))
    assert info.picture.alpha
    assert "alpha" in info.picture_policy
    np.testing.assert_array_equal(first_picture(path, SQUARE)[16, 16], (200, 40, 60))
    share = 128 / 255
    for background in ((255, 255, 255), (0, 90, 10)):
        expected = [round(c * share + b * (1 - share)) for c, b in zip((200, 40, 60), background, strict=True)]
        shown = first_picture(path, replace(SQUARE, alpha_background=background))
        np.testing.assert_allclose(shown[16, 16], expected, atol=1)


def encode_pq(nits: float) -> int:
    """SMPTE ST 2084, equation 5.2, as 16 bits."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    y = (nits / 10000) ** m1
    return round(((c1 + c2 * y) / (1 + c3 * y)) ** m2 * 65535)


def encode_hlg(nits: float) -> int:
    """The inverse of BT.2100's HLG for a display of 1000 nits, for grey, as 16 bits."""
    scene = (nits / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    coded = (3 * scene) ** 0.5 if scene <= 1 / 12 else a * np.log(12 * scene - b) + c
    return round(float(coded) * 65535)


@pytest.mark.parametrize(("transfer", "encode"), [("pq", encode_pq), ("hlg", encode_hlg)])
def test_tone_mapping_follows_its_curve(transfer: str, encode: object) -> None:
    nits = np.array([0.5, 10, 50, 100, 203, 400, 700, 1000])
    coded = np.array([encode(n) for n in nits], dtype=np.uint16)  # type: ignore[operator]
    grey = np.repeat(coded[None, :, None], 3, axis=2)
    shown = tonemap(grey, transfer, wide=True)[0]  # type: ignore[arg-type]
    light = nits / 203
    white = 1000 / 203
    light = np.clip(light * (1 + light / white**2) / (1 + light), 0, 1)
    curve = np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)
    np.testing.assert_allclose(shown, np.repeat((curve * 255)[:, None], 3, axis=1), atol=1.5)
    assert shown[-1].min() >= 253


def test_tone_mapping_is_off_unless_chosen(shared_data: Path) -> None:
    for name in ("hdr10-av1.mp4", "hlg10-color-test.mp4"):
        path = shared_data / "videos/androidx_media" / name
        coded, mapped = first_picture(path, SQUARE), first_picture(path, replace(SQUARE, tonemap=True))
        assert np.abs(coded.astype(int) - mapped.astype(int)).mean() > 3, name
    standard = shared_data / "videos/androidx_media/sample.mkv"
    np.testing.assert_array_equal(
        first_picture(standard, SQUARE), first_picture(standard, replace(SQUARE, tonemap=True))
    )


def test_one_field_of_an_interlaced_picture(tmp_path: Path) -> None:
    """Bright lines of one field between dark ones of the other: woven they are grey, of one field they are bright."""
    combed = np.zeros((64, 96, 3), dtype=np.uint8)
    combed[::2] = 200
    combed[1::2] = 40
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"flags": "+ildct+ilme", "qp": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(combed, format="rgb24")))
        container.mux(stream.encode(None))
    assert scan_video(source_of(path)).picture.interlaced
    woven = first_picture(path, SQUARE)
    field = first_picture(path, replace(SQUARE, deinterlace=True))
    assert abs(int(woven[16, 16, 0]) - 120) < 15
    assert abs(int(field[16, 16, 0]) - 200) < 6
    progressive = make_video(tmp_path / "progressive.mkv", frames=3)
    np.testing.assert_array_equal(
        first_picture(progressive, SMALL), first_picture(progressive, replace(SMALL, deinterlace=True))
    )


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_key_frames_alone(tmp_path: Path, suffix: str) -> None:
    path = make_video(tmp_path / f"video{suffix}", frames=100, gop=20, bframes=2, options={"x264-params": "scenecut=0"})
    info = scan_video(source_of(path))
    clips = plan_clips(info, fps=Fraction(5), clip_frames=20, frames="key")
    with open_video(timing_of(info)) as video:
        (clip,) = video.decode(clips, SMALL)
    assert [number_of(frame) for frame in clip.frames] == [0, 20, 40, 60, 80]
    assert clip.spec.frame_instants == (3, 4, 4, 4, 5)
    assert clip.frame_time_ns.tolist() == [i * 800_000_000 for i in range(5)]


def test_video_models_get_even_time(tmp_path: Path) -> None:
    slides = [picture(i // 25) for i in range(75)]
    path = make_video(tmp_path / "slides.mkv", frames=[slides[i] for i in (0, 25, 50)], pts=[0, 25, 50])
    info = scan_video(source_of(path))
    clips = plan_clips(info, fps=Fraction(5), clip_frames=8)
    with open_video(timing_of(info)) as video:
        clip, *_ = video.decode(clips, SMALL)
    even = at_grid_times(clip)
    assert [number_of(frame) for frame in clip.frames] == [0, 1]
    assert [number_of(frame) for frame in even.frames] == [0] * 5 + [1] * 3
    assert len(even.frame_time_ns) == 8
