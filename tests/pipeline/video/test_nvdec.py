"""NVDEC behind the protocol: its pictures are libavcodec's. Without a GPU, what it is given, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av.logging
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.errors import DecodeError, SettingsError
from pipeline.plan.clips import plan_clips
from pipeline.video import gpu_of_nvdec, open_video, scan_video, timing_of
from pipeline.video.backend import HARMLESS, Backend, LibavBackend, is_bad
from pipeline.video.cursor import Cursor
from pipeline.video.keys import keys_of
from pipeline.video.nvdec import TURNED_DOWN, NvdecBackend, check_size, decodes
from pipeline.video.packets import PacketSource
from pipeline.video.torch_picture import planes_of
from pipeline.video_info import PicturePolicy
from tests.pipeline.video.reference import SMALL, source_of
from tests.synthetic import make_video

HOPPER, AMPERE = (9, 0), (8, 0)
CODECS = [
    ("video.mp4", "libx264", 3, {"preset": "veryfast"}, "yuv420p"),
    ("video.mkv", "libx265", 3, {"preset": "ultrafast", "x265-params": "log-level=none"}, "yuv420p"),
    ("deep.mkv", "libx265", 3, {"preset": "ultrafast", "x265-params": "log-level=none"}, "yuv420p10le"),
    ("video.webm", "libvpx-vp9", 0, {"deadline": "realtime", "cpu-used": "8"}, "yuv420p"),
    ("first.webm", "libvpx", 0, {"deadline": "realtime", "cpu-used": "8"}, "yuv420p"),
    ("av1.mkv", "libsvtav1", 0, {"preset": "12"}, "yuv420p"),
]


@pytest.mark.parametrize(
    ("codec", "pixels", "size_px", "capability", "given"),
    [
        ("h264", "yuv420p", (1280, 720), AMPERE, True),
        ("h264", "yuvj420p", (1280, 720), AMPERE, True),
        ("h264", "yuv422p", (1280, 720), HOPPER, False),
        ("hevc", "yuv420p10le", (1280, 720), AMPERE, True),
        ("hevc", "yuv444p", (1280, 720), HOPPER, False),
        ("vp9", "yuv420p", (426, 240), AMPERE, True),
        ("vp9", "yuv420p", (161, 121), HOPPER, False),
        ("av1", "yuv420p", (426, 240), HOPPER, True),
        ("av1", "yuv420p", (426, 240), AMPERE, False),
        ("mpeg2video", "yuv420p", (720, 576), HOPPER, False),
        ("mjpeg", "yuvj420p", (720, 576), HOPPER, False),
        ("h264", None, (720, 576), HOPPER, False),
    ],
)
def test_it_is_given_what_it_decodes_to_the_bit(
    codec: str, pixels: str | None, size_px: tuple[int, int], capability: tuple[int, int], given: bool
) -> None:
    assert decodes(codec, pixels, size_px, capability) is given


def test_that_a_gpu_turns_a_stream_down_is_no_damage() -> None:
    harmless = (*HARMLESS, *TURNED_DOWN)
    for text in (
        "Failed setup for format cuda: hwaccel initialisation returned error.",
        "Video width 32 not within range from 48 to 4096",
        "Video macroblock count 262144 exceeds maximum of 65536",
        "Hardware is lacking required capabilities",
    ):
        assert not is_bad(av.logging.ERROR, text, harmless)
        assert is_bad(av.logging.ERROR, text, HARMLESS)
    assert is_bad(av.logging.ERROR, "error while decoding MB 3 5, bytestream -7", harmless)


def test_a_picture_that_is_not_cut_to_size_is_refused() -> None:
    """Of a stream whose headers cut off columns at the left: shown whole, it would be another picture."""
    known = {(1280, 720), (640, 360)}
    for size_px in known:
        check_size(size_px, known)
    with pytest.raises(DecodeError, match="1288x720 instead of 640x360 or 1280x720: use --decoder libav") as error:
        check_size((1288, 720), known)
    assert error.value.failure == "unsupported"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused_in_one_line() -> None:
    with pytest.raises(SettingsError, match=r"--decoder nvdec needs an NVIDIA GPU, .*: leave out") as error:
        gpu_of_nvdec()
    assert "\n" not in str(error.value)


def test_a_gpu_that_libavcodec_cannot_use_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SettingsError, match=r"the GPU cannot be used \(Operation not permitted\)") as error:
        gpu_of_nvdec()
    assert "\n" not in str(error.value)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "codec", "bframes", "options", "pixels"), CODECS, ids=[c[0] for c in CODECS])
def test_its_planes_are_those_of_libavcodec(
    cuda: torch.device, tmp_path: Path, name: str, codec: str, bframes: int, options: dict[str, str], pixels: str
) -> None:
    path = make_video(
        tmp_path / name,
        frames=60,
        gop=20,
        bframes=bframes,
        codec=codec,
        options=options,
        size=(144, 176),
        pixel_format=pixels,
    )
    info = scan_video(source_of(path))
    source = PacketSource(str(path), 0)
    context = source.stream.codec_context
    size_px = context.width, context.height
    if not decodes(info.codec, context.pix_fmt, size_px, torch.cuda.get_device_capability(cuda)):
        pytest.skip(f"this GPU does not decode {info.codec}")
    source.close()
    wanted: list[list[NDArray[np.generic]]] = []
    for on_gpu in (False, True):
        source = PacketSource(str(path), 0)
        backend: Backend = NvdecBackend(source.stream, cuda) if on_gpu else LibavBackend(source.stream)
        cursor = Cursor(source, backend, backend, keys_of(info.key_pts))
        planes: list[NDArray[np.generic]] = []
        for shown in cursor.show(info.frame_pts.tolist()[::7]):
            assert shown.frame is not None
            assert not shown.damaged
            assert (shown.frame.format.name == "cuda") is on_gpu, "the pictures stay where they are decoded"
            planes += [p.cpu().numpy() for p in planes_of(shown.frame, PicturePolicy(), VideoReformatter())]
        wanted.append(planes)
        source.close()
    for one, other in zip(*wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.gpu
def test_clips_on_a_gpu_are_those_of_a_cpu(cuda: torch.device, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=90, gop=30, bframes=3, size=(144, 176))
    info = scan_video(source_of(path))
    specs = plan_clips(info, fps=Fraction(5), clip_frames=6)
    picture = replace(SMALL, decoder="nvdec")
    with open_video(timing_of(info), "nvdec") as video:
        ours = np.concatenate([clip.frames for clip in video.decode(specs, picture)])
        again = np.concatenate([clip.frames for clip in video.decode(specs[2:], picture)])
    np.testing.assert_array_equal(ours[-len(again) :], again)
    with open_video(timing_of(info)) as video:
        wanted = np.concatenate([clip.frames for clip in video.decode(specs, SMALL)])
    assert np.abs(ours.astype(int) - wanted.astype(int)).max() <= 4


@pytest.mark.gpu
def test_what_swscale_shows_comes_down_from_the_gpu(cuda: torch.device, tmp_path: Path) -> None:
    """One field of interlaced pictures, which torch does not take apart."""
    combed = np.zeros((144, 176, 3), dtype=np.uint8)
    combed[::2], combed[1::2] = 200, 40
    path = make_video(tmp_path / "video.mkv", frames=[combed] * 9, gop=3, options={"flags": "+ildct+ilme", "qp": "1"})
    info = scan_video(source_of(path))
    assert info.picture.interlaced
    specs = plan_clips(info, fps=Fraction(25), clip_frames=9)
    with open_video(timing_of(info), "nvdec") as video:
        (clip,) = video.decode(specs, replace(SMALL, decoder="nvdec", deinterlace=True))
    middle = clip.frames[:, clip.frames.shape[1] // 2, clip.frames.shape[2] // 2, 0].astype(int)
    assert np.abs(middle - 200).max() < 8


@pytest.mark.gpu
def test_a_damaged_group_is_shown_by_libavcodec(cuda: torch.device, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=60, gop=20, size=(144, 176))
    source, places = PacketSource(str(path), 0), []
    while (found := source.read()) is not None:
        places.append((found.packet.pos or 0, found.packet.size))
    source.close()
    position, size = places[25]
    data = bytearray(path.read_bytes())
    data[position + 5 : position + size] = bytes(size - 5)
    path.write_bytes(data)
    info = scan_video(source_of(path))
    specs = plan_clips(info, fps=Fraction(25), clip_frames=60)
    with open_video(timing_of(info), "nvdec") as video:
        (clip,) = video.decode(specs, SMALL)
    assert clip.is_damaged is not None
    np.testing.assert_array_equal(np.flatnonzero(clip.is_damaged), np.arange(25, 40))
