"""Random corruptions of whole files in every codec."""

from __future__ import annotations

import random
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

from pipeline.errors import DecodeError
from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, scan_video, timing_of
from tests.pipeline.video.h264_fields import write
from tests.pipeline.video.reference import SMALL, source_of
from tests.pipeline.video.test_fields import greys
from tests.synthetic import make_video

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


def corrupt_all(folder: Path, count: int) -> Counter[str]:
    """Scan and decode so many corrupted files; what came of them, and the time of the slowest in milliseconds.

    Raises:
        Exception: one that is no DecodeError.
    """
    originals = [write(folder / "fields.ts", greys("fields"), packet_per_field=True)]
    for name, codec, bframes, options in MADE:
        originals.append(
            make_video(folder / name, frames=50, gop=20, bframes=bframes, codec=codec, options=options, size=(64, 96))
        )
    outcomes: Counter[str] = Counter()
    for seed in range(count):
        original = originals[seed % len(originals)]
        path = folder / f"corrupted{original.suffix}"
        path.write_bytes(corrupted(original.read_bytes(), random.Random(seed)))
        started = time.perf_counter()
        outcomes += _outcomes(path)
        outcomes["slowest ms"] = max(outcomes["slowest ms"], round(1000 * (time.perf_counter() - started)))
    return outcomes


def _outcomes(path: Path) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    try:
        info = scan_video(source_of(path))
    except DecodeError:
        return Counter({"failed scan": 1})
    with open_video(timing_of(info)) as video:
        for clip in plan_clips(info, fps=Fraction(5), clip_frames=3)[:20]:
            try:
                list(video.decode([clip], SMALL))
                outcomes["clips"] += 1
            except DecodeError:
                outcomes["failed clip"] += 1
    return outcomes
