"""A video of any length, made here: shapes that move over a noisy ground, with a cut every few seconds."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE_PX = (360, 640)
FPS = 24
CUT_S = 7


def make_video(path: Path, length_s: int) -> Path:
    """Write it, as h264 in mp4.

    Args:
        path: ends in .mp4.
        length_s: whole seconds.
    """
    rng = np.random.default_rng(5)
    height_px, width_px = SIZE_PX
    rows, columns = np.mgrid[:height_px, :width_px]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": "48"})
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for number in range(length_s * FPS):
            if number % (CUT_S * FPS) == 0:
                ground = rng.integers(0, 160, 3) + rng.integers(0, 60, (height_px, width_px, 1))
                colour, speed = rng.integers(80, 256, 3), rng.uniform(-5, 5, 2)
            y, x = (np.array([height_px, width_px]) / 2 + speed * (number % (CUT_S * FPS))).astype(int)
            picture = np.where(((rows - y) ** 2 + (columns - x) ** 2 < 3600)[..., None], colour, ground)
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
