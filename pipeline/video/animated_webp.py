"""Animated WebP, which libavformat does not read: its pictures, by Pillow, become a file that libavformat reads.

Nothing is lost on the way: the file holds the pictures as PNG, at their own times in milliseconds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from av import VideoFrame
from PIL import Image

from pipeline.errors import DecodeError
from pipeline.video.backend import MOST_PICTURE_PX

TICK_S = Fraction(1, 1000)
MOST_BYTES = 256 << 20
"""Of the compressed pictures, which are held in memory."""
SHORTEST_MS, DEFAULT_MS = 20, 100
"""A picture that is to be shown for less than the first is shown for the second, as in a GIF that libavformat reads."""


def is_animated_webp(head: bytes) -> bool:
    """Whether a file that begins so is an animated WebP: an extended header that says so."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2)


@contextmanager
def rewritten(stream: BinaryIO, uri: str) -> Iterator[io.BytesIO]:
    """The animation as MOV, in memory.

    Raises:
        DecodeError: it is damaged (`corrupt`), or its pictures are too large or too many (`unsupported`).
    """
    with _opened(stream, uri) as image, io.BytesIO() as target:
        with av.open(target, "w", format="mov", options={"video_track_timescale": "1000"}) as container:
            track = container.add_stream("png", options={"compression_level": "1"})
            track.width, track.height = image.size
            track.pix_fmt = "rgba"
            track.time_base = track.codec_context.time_base = TICK_S
            for pts, shown_ms, picture in _pictures(image, uri):
                frame = VideoFrame.from_ndarray(np.asarray(picture), format="rgba")
                frame.pts, frame.time_base = pts, TICK_S
                for packet in track.encode(frame):
                    packet.duration = shown_ms
                    container.mux(packet)
                if target.tell() > MOST_BYTES:
                    raise DecodeError("unsupported", f"{uri}: the animation is too long to be held: convert it to MP4")
        target.seek(0)
        yield target


@contextmanager
def _opened(stream: BinaryIO, uri: str) -> Iterator[Image.Image]:
    stream.seek(24)
    sides = stream.read(6)
    width, height = (1 + int.from_bytes(side, "little") for side in (sides[:3], sides[3:]))
    if width * height > MOST_PICTURE_PX:
        raise DecodeError("unsupported", f"{uri}: pictures of {width} x {height} are too large to be shown")
    stream.seek(0)
    try:
        image = Image.open(stream, formats=["WEBP"])
    except (OSError, ValueError) as error:
        raise DecodeError("corrupt", f"{uri}: this is no WebP that can be read") from error
    with image:
        yield image


def _pictures(image: Image.Image, uri: str) -> Iterator[tuple[int, int, Image.Image]]:
    """From which millisecond on a picture is shown, for how many, and the picture."""
    pts, count = 0, getattr(image, "n_frames", 1)
    for number in range(count):
        try:
            image.seek(number)
            picture = image.convert("RGBA")
        except (OSError, ValueError, EOFError) as error:
            raise DecodeError("corrupt", f"{uri}: picture {number + 1} of {count} is damaged") from error
        shown_ms = int(image.info.get("duration") or 0)
        shown_ms = shown_ms if shown_ms >= SHORTEST_MS else DEFAULT_MS
        yield pts, shown_ms, picture
        pts += shown_ms
