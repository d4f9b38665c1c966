"""Videos made with PyAV for tests: every frame carries its number, so that a frame can be told from its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

CELLS = 12
"""Bits of the frame number, drawn as black and white cells along the top."""


def picture(number: int, *, size: tuple[int, int] = (64, 96), seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3) RGB: the number in binary along the top, over a drifting gradient."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    phase = 3 * number + seed
    rgb = np.stack([(x * 2 + phase) % 200, (y * 3 + 2 * phase) % 180, (x + y + phase) % 160], axis=-1) + 20
    edges = np.linspace(0, width, CELLS + 1).astype(int)
    for bit in range(CELLS):
        rgb[: height // 4, edges[bit] : edges[bit + 1]] = 235 if number >> bit & 1 else 16
    return rgb.astype(np.uint8)


def number_of(rgb: NDArray[np.uint8]) -> int:
    """Read the number back off a picture of any size."""
    height, width = rgb.shape[:2]
    edges = np.linspace(0, width, CELLS + 1)
    row = rgb[: max(height // 6, 1)].mean(axis=(0, 2))
    return sum(int(row[int((edges[bit] + edges[bit + 1]) / 2)] > 126) << bit for bit in range(CELLS))


def make_video(
    path: Path,
    *,
    frames: int | Sequence[NDArray[np.uint8]] = 30,
    fps: Fraction | int = 25,
    gop: int = 12,
    bframes: int = 0,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 96),
    pts: Sequence[int] | None = None,
    start_pts: int = 0,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    rotation_deg: int = 0,
    pixel_format: str = "yuv420p",
) -> Path:
    """Write a video; its container follows from the suffix of `path`.

    Args:
        path: where to.
        frames: pictures, or how many numbered ones to draw.
        fps: constant rate, unless `pts` says otherwise.
        gop: most frames from one key frame to the next.
        bframes: most B-frames in a row (h264, hevc, mpeg4, mpeg2video).
        codec: name of an encoder.
        size: (height, width) of numbered pictures.
        pts: ticks of the frames, for variable rates; by default 0, 1, 2 ...
        start_pts: added to every tick.
        time_base: of the ticks; by default 1 / fps.
        options: further options of the encoder.
        rotation_deg: counterclockwise turn that the display matrix asks for.
        pixel_format: of the coded pictures.
    """
    pictures = [picture(i, size=size) for i in range(frames)] if isinstance(frames, int) else frames
    height, width = pictures[0].shape[:2]
    ticks = pts if pts is not None else range(len(pictures))
    base = time_base or 1 / Fraction(fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = bframes
        stream.codec_context.time_base = base
        stream.codec_context.thread_count = 1
        if rotation_deg:
            stream.set_display_rotation(rotation_deg)
        for rgb, tick in zip(pictures, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = start_pts + tick, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
