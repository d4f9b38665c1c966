"""One damaged packet in a file, and what it does to the pictures, by a full decode that knows nothing of ours."""

from __future__ import annotations

import random
import subprocess
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
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video_info import VideoInfo
from tests.pipeline.video.reference import SMALL, full_decode, source_of

CODECS = {
    "h264": ("mp4", "-c:v libx264 -preset medium -bf 3 -g 40 -sc_threshold 0"),
    "h264-cavlc": ("mp4", "-c:v libx264 -profile:v baseline -preset medium -g 40 -sc_threshold 0"),
    "hevc": ("mp4", "-c:v libx265 -preset fast -x265-params log-level=error:keyint=40:scenecut=0"),
    "vp9": ("webm", "-c:v libvpx-vp9 -b:v 200k -deadline realtime -cpu-used 6 -g 40"),
    "av1": ("mp4", "-c:v libsvtav1 -preset 8 -crf 35 -g 40"),
    "mpeg4": ("mp4", "-c:v mpeg4 -q:v 5 -bf 2 -g 40"),
}
KINDS = ("flip", "blank", "drop")
WRONG_LEVELS = 2.0
CLIP_FRAMES = 4


def make_originals(film: Path, folder: Path, *, seconds: int, width_px: int) -> dict[str, Path]:
    """A part of the film in each codec, by the ffmpeg command."""
    found = {}
    for codec, (suffix, arguments) in CODECS.items():
        found[codec] = folder / f"{codec}.{suffix}"
        command = ["ffmpeg", "-nostdin", "-y", "-v", "error", "-ss", "200", "-t", str(seconds), "-i", str(film), "-an"]
        command += ["-vf", f"scale={width_px}:-2", *arguments.split(), str(found[codec])]
        subprocess.run(command, check=True, capture_output=True)
    return found


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
    ticks = sorted(clean)
    expected = len(instants(ticks, whole.time_base, fps))
    try:
        info = scan_video(source_of(damaged))
    except DecodeError:
        return Verdict(wrong=expected, counted=expected)
    start_s = info.start_pts * info.time_base
    verdict, samples = Verdict(), 0
    for place, (picture, counted) in decode_flagged(info, fps):
        due = bisect_right(ticks, (start_s + place / fps) / whole.time_base) - 1
        wrong = float(np.abs(picture.astype(int) - clean[ticks[due]].astype(int)).mean()) > WRONG_LEVELS
        samples += 1
        verdict += Verdict(wrong, wrong and counted, wrong and not counted, counted and not wrong)
    lost = max(expected - samples, 0)
    return Verdict(verdict.wrong + lost, verdict.counted + lost, verdict.missed, verdict.in_vain)


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


def sweep(original: Path, folder: Path, count: int, seed: int) -> dict[str, Verdict]:
    """So many single damages, by kind, at random packets."""
    rng = random.Random(seed)
    packets = read_packets(original)
    clean = full_decode(scan_video(source_of(original)))
    table = {kind: Verdict() for kind in KINDS}
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        path = folder / f"damaged{original.suffix}"
        write_damaged(original, packets, path, kind, rng.randrange(len(packets)), rng.randrange(1 << 30))
        table[kind] += judge(original, clean, path, Fraction(8))
    return table


def print_table(table: dict[str, dict[str, Verdict]]) -> None:
    print(f"\n{'':14}{'wrong':>8}{'counted':>9}{'missed':>8}{'in vain':>9}")
    for codec, kinds in table.items():
        for kind, verdict in kinds.items():
            print(f"{codec + ' ' + kind:14}{verdict.wrong:8}{verdict.counted:9}{verdict.missed:8}{verdict.in_vain:9}")
