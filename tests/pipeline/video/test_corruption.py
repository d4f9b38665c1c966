"""Random corruptions of whole files in every codec: each ends in clips or in a DecodeError, and never in a hang."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.errors import DecodeError
from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, scan_video, timing_of
from tests.pipeline.video.h264_fields import write
from tests.pipeline.video.reference import SMALL, source_of
from tests.pipeline.video.test_fields import greys
from tests.synthetic import make_video

CORRUPTIONS = int(os.environ.get("CORRUPTIONS", "150"))
"""2000 were run before the last change of the cursor."""
MADE = [
    ("h264.mp4", "libx264", 3, {"preset": "veryfast"}),
    ("h264.ts", "libx264", 2, {"preset": "veryfast"}),
    ("h264.flv", "libx264", 2, {"preset": "veryfast"}),
    ("h264.avi", "libx264", 2, {"preset": "veryfast"}),
    ("hevc.mkv", "libx265", 3, {"preset": "ultrafast", "x265-params": "log-level=none"}),
    ("vp9.webm", "libvpx-vp9", 0, {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "10"}),
    ("vp8.webm", "libvpx", 0, {"deadline": "realtime", "cpu-used": "8"}),
    ("av1.mp4", "libsvtav1", 0, {"preset": "12", "svtav1-params": "lp=1"}),
    ("mpeg4.avi", "mpeg4", 2, {}),
    ("mpeg2.ts", "mpeg2video", 2, {}),
    ("mpeg2.mxf", "mpeg2video", 2, {}),
]


def corrupted(original: bytes, rng: random.Random) -> bytes:
    """Flip bits anywhere, cut the end off, blank a stretch, or move one."""
    data = bytearray(original)
    kind = rng.choice(["flip", "cut", "blank", "move"])
    start = rng.randrange(len(data))
    if kind == "flip":
        for _ in range(rng.choice([1, 8, 200])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[start:]
    elif kind == "blank":
        data[start : start + 5000] = bytes(len(data[start : start + 5000]))
    else:
        stretch = data[start : start + rng.choice([1, 100, 3000])]
        del data[start : start + len(stretch)]
        place = rng.randrange(len(data) + 1)
        data[place:place] = stretch
    return bytes(data)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_corruptions_end_in_clips_or_decode_errors(tmp_path: Path) -> None:
    originals = [write(tmp_path / "fields.ts", greys("fields"), packet_per_field=True)]
    for name, codec, bframes, options in MADE:
        originals.append(
            make_video(
                tmp_path / name, frames=50, gop=20, bframes=bframes, codec=codec, options=options, size=(96, 128)
            )
        )
    outcomes = {"clips": 0, "failed scan": 0, "failed clip": 0}
    for seed in range(CORRUPTIONS):
        original = originals[seed % len(originals)]
        path = tmp_path / f"corrupted{original.suffix}"
        path.write_bytes(corrupted(original.read_bytes(), random.Random(seed)))
        try:
            info = scan_video(source_of(path))
        except DecodeError:
            outcomes["failed scan"] += 1
            continue
        with open_video(timing_of(info)) as video:
            for clip in plan_clips(info, fps=Fraction(5), clip_frames=3)[:20]:
                try:
                    list(video.decode([clip], SMALL))
                    outcomes["clips"] += 1
                except DecodeError:
                    outcomes["failed clip"] += 1
    assert outcomes["clips"] > CORRUPTIONS
    assert outcomes["failed scan"] > 0
