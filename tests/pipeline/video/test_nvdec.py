"""NVDEC behind the protocol: its pictures are libavcodec's. Without a GPU only its refusals are tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from av import VideoFrame
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.video.backend import Backend, LibavBackend
from pipeline.video.cursor import Cursor
from pipeline.video.keys import keys_of
from pipeline.video.nvdec import NvdecBackend
from pipeline.video.packets import PacketSource
from tests.synthetic import make_video

CODECS = [
    ("video.mp4", "libx264", 3, {"preset": "veryfast"}),
    ("video.mkv", "libx265", 3, {"preset": "ultrafast", "x265-params": "log-level=none"}),
    ("video.webm", "libvpx-vp9", 0, {"deadline": "realtime", "cpu-used": "8"}),
    ("first.ts", "mpeg2video", 2, {}),
]


def planes(frame: VideoFrame) -> NDArray[np.uint8]:
    """Luma and chroma in one array, whatever the order in memory."""
    array: NDArray[np.uint8] = frame.reformat(format="yuv420p").to_ndarray()
    return array


def test_without_a_gpu_it_is_refused_in_one_line(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    source = PacketSource(str(make_video(tmp_path / "video.mp4", frames=3)), 0)
    with pytest.raises(DecodeError, match="NVDEC cannot be used here") as error:
        NvdecBackend(source.stream)
    assert error.value.failure == "unsupported"
    assert "\n" not in str(error.value)
    source.close()


def test_a_codec_that_it_lacks_is_refused_by_name(tmp_path: Path) -> None:
    source = PacketSource(str(make_video(tmp_path / "video.mov", frames=3, codec="mjpeg", pixel_format="yuvj420p")), 0)
    with pytest.raises(DecodeError, match="mjpeg"):
        NvdecBackend(source.stream)
    source.close()


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "codec", "bframes", "options"), CODECS, ids=[c[1] for c in CODECS])
def test_its_pictures_are_those_of_libavcodec(
    cuda: torch.device, tmp_path: Path, name: str, codec: str, bframes: int, options: dict[str, str]
) -> None:
    path = make_video(
        tmp_path / name, frames=60, gop=20, bframes=bframes, codec=codec, options=options, size=(144, 176)
    )
    wanted: list[list[NDArray[np.uint8]]] = []
    for make in (LibavBackend, NvdecBackend):
        source = PacketSource(str(path), 0)
        backend: Backend = make(source.stream)
        ticks, keys = _ticks(path)
        cursor = Cursor(source, backend, backend, keys_of(keys))
        wanted.append([planes(shown.frame) for shown in cursor.show(ticks[::7]) if shown.frame is not None])
        source.close()
    assert len(wanted[0]) == len(wanted[1])
    for one, other in zip(*wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def _ticks(path: Path) -> tuple[list[int], NDArray[np.int64]]:
    from pipeline.video import scan_video
    from tests.pipeline.video.reference import source_of

    info = scan_video(source_of(path))
    return info.frame_pts.tolist(), info.key_pts
