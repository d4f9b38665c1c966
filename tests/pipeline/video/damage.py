"""One damaged packet in a file, and what it does to the pictures, by a full decode that knows nothing of ours."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.plan.clips import plan_clips
from pipeline.values import VideoInfo
from pipeline.video import open_video, scan_video, timing_of
from tests.pipeline.video.reference import SMALL, source_of

KINDS = ("flip", "blank", "drop")
WRONG_LEVELS = 2.0
CLIP_FRAMES = 4


@dataclass(frozen=True, slots=True)
class StoredPacket:
    """A packet of an undamaged file."""

    data: bytes
    pts: int | None
    dts: int | None
    time_base: Fraction
    is_key: bool


def read_packets(path: Path) -> list[StoredPacket]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [
            StoredPacket(bytes(p), p.pts, p.dts, p.time_base, p.is_keyframe) for p in container.demux(stream) if p.size
        ]


def write_damaged(original: Path, packets: Sequence[StoredPacket], path: Path, kind: str, at: int, seed: int) -> None:
    """Copy the packets to `path`, the one at `at` damaged."""
    rng = random.Random(seed)
    # Bitstream filters of the muxer would refuse some of the damage.
    options = {"fflags": "-autobsf"}
    with av.open(str(original)) as source, av.open(str(path), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for number, stored in enumerate(packets):
            data = bytearray(stored.data)
            if number == at and kind == "drop":
                continue
            if number == at and kind == "blank":
                data = bytearray(len(data))
            elif number == at:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            packet = av.Packet(bytes(data))
            packet.pts, packet.dts, packet.time_base = stored.pts, stored.dts, stored.time_base
            packet.is_keyframe = stored.is_key
            packet.stream = stream
            target.mux(packet)


@dataclass(slots=True)
class Verdict:
    """Samples of damaged files, sorted."""

    wrong: int = 0
    counted: int = 0
    missed: int = 0
    in_vain: int = 0

    def __iadd__(self, other: Verdict) -> Verdict:
        self.wrong += other.wrong
        self.counted += other.counted
        self.missed += other.missed
        self.in_vain += other.in_vain
        return self


def instants(ticks: Sequence[int], time_base: Fraction, fps: Fraction) -> list[int]:
    """The tick on display at each instant of the grid of an undamaged file."""
    shown = []
    while (instant := ticks[0] + len(shown) / fps / time_base) <= ticks[-1]:
        shown.append(ticks[bisect_right(ticks, instant) - 1])
    return shown


def judge(original: Path, clean: dict[int, NDArray[np.uint8]], damaged: Path, fps: Fraction) -> Verdict:
    """Compare each sample of a damaged file with what the undamaged one shows at that time."""
    whole = scan_video(source_of(original))
    expected = [clean[tick] for tick in instants(sorted(clean), whole.time_base, fps)]
    verdict = Verdict()
    try:
        info = scan_video(source_of(damaged))
    except DecodeError:
        verdict.wrong = verdict.counted = len(expected)
        return verdict
    offset = round((info.start_pts * info.time_base - whole.start_pts * whole.time_base) * fps)
    samples = {offset + place: sample for place, sample in decode_flagged(info, fps)}
    for number, picture in enumerate(expected):
        sample = samples.get(number)
        difference = 255.0 if sample is None else float(np.abs(sample[0].astype(int) - picture.astype(int)).mean())
        wrong, counted = difference > WRONG_LEVELS, sample is None or sample[1]
        verdict.wrong += wrong
        verdict.counted += wrong and counted
        verdict.missed += wrong and not counted
        verdict.in_vain += counted and not wrong
    return verdict


def decode_flagged(info: VideoInfo, fps: Fraction) -> Iterator[tuple[int, tuple[NDArray[np.uint8], bool]]]:
    """Each instant's picture and whether it is counted as damaged; clips that fail give none."""
    with open_video(timing_of(info)) as video:
        for clip in plan_clips(info, fps=fps, clip_frames=CLIP_FRAMES):
            try:
                (decoded,) = video.decode([clip], SMALL)
            except DecodeError:
                continue
            assert decoded.is_damaged is not None
            place = clip.index * CLIP_FRAMES
            for row, flag, count in zip(decoded.frames, decoded.is_damaged, clip.frame_instants, strict=True):
                for _ in range(count):
                    yield place, (row, bool(flag))
                    place += 1
