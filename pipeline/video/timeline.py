"""A track to its timeline: when each frame is shown, and what the header promises beyond the last of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.video.backend import LibavBackend
from pipeline.video.packets import PacketSource
from pipeline.video.tracks import Track
from pipeline.video_info import TimestampSource

DEFAULT_RATE = Fraction(25)
SLOWEST_COUNTED = Fraction(1, 60)
"""Frames a second, of streams whose frames are counted."""
LONGEST_VIDEO_S = 31 * 86400
"""A span beyond a month comes of a damaged clock, not of a video; and it would be planned instant by instant."""
UNPROMISED_STILL_S = 60
"""So does one frame shown for longer than this, where the video then lasts twice as long as its header says."""
FEWEST_REGULAR = 40
"""Frames that make a rate: of fewer, nothing can be said to be missing."""
CUT_FRAMES = 16
"""Holes among so many frames at the end are meant: a file cut between packets lacks pictures before its last one. Of
codecs whose numbers do not tell what is lost, and which reorder less, it is before the very last one."""
LONGEST_HOLE = 8
"""Frames that may be missing in a row: more are a pause that was meant."""
NUMBERED_CODECS = frozenset({"h264", "hevc", "av1"})
"""Those whose own numbers tell which pictures others lack."""
ALL_KEY_CODECS = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "ffv1", "png", "cfhd", "dirac", "exr"})
"""Of the codecs that also have predicted pictures, those that are believed where every picture is a key frame: their
headers say so, or they are recorded so."""
TAIL_TOLERANCE_S = Fraction(1)
TAIL_TOLERANCE_SHARE = Fraction(1, 50)
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the frames of a stream are shown, in ticks of `time_base`."""

    timestamps: TimestampSource
    time_base: Fraction
    frame_pts: NDArray[np.int64]
    """Increasing."""
    key_pts: NDArray[np.int64]
    """Increasing."""
    key_waits: tuple[tuple[int, int], ...] = ()
    missing_pts: tuple[int, ...] = ()
    """Those of `frame_pts` at which the file lacks a packet."""
    missing_step: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def end_s(self) -> Fraction:
        """Where the last frame ends, a mean frame after its time: headers count from the first frame or from zero."""
        first, last, count = int(self.frame_pts[0]), int(self.frame_pts[-1]), len(self.frame_pts)
        frame_s = (last - first) * self.time_base / max(count - 1, 1)
        return max(last, last - first) * self.time_base + frame_s


def read_timeline(
    uri: str,
    container: InputContainer,
    stream: VideoStream,
    track: Track,
    first: VideoFrame,
    promised_s: Fraction | None,
) -> Timeline:
    """Settle when frames are shown: by the packets where they tell, else by decoding the whole stream once.

    Args:
        uri: where the stream is, for decoding it.
        container: what holds the stream.
        stream: the chosen stream.
        track: its packets.
        first: its first decoded frame. What is shown before it (leading pictures of an open group, a start in
            mid-group) is never put out, so the video starts here.
        promised_s: how long the header says the video is.
    """
    assert stream.time_base is not None
    time_base = stream.time_base
    keys = _trusted_keys(track, stream, first)
    keys_increase = bool(np.all(np.diff(keys) > 0))
    waits = tuple(track.key_waits)
    if first.pts is not None and keys_increase and _packets_tell(track, stream):
        frame_pts = np.unique(np.frombuffer(track.pts, dtype=np.int64))
        frame_pts = frame_pts[frame_pts >= first.pts]
        if _is_plausible(frame_pts, time_base, promised_s):
            return _with_missing(Timeline("stream", time_base, frame_pts, keys, waits), stream, container, track)
    decoded = [frame.pts for frame in decode_all(uri, stream.index)]
    if None not in decoded:
        ticks = np.asarray(decoded, dtype=np.int64)
        if np.all(np.diff(ticks) > 0) and _is_plausible(ticks, time_base, promised_s):
            keys = keys if keys_increase and np.isin(keys, ticks).all() else ticks[:1]
            warnings = ("packets do not tell the frames: all were decoded",)
            return Timeline("stream", time_base, ticks, keys, waits, warnings=warnings)
    rates = (Fraction(rate) for rate in (stream.guessed_rate, stream.average_rate) if rate)
    # A damaged header may promise a frame in months, and each instant of them would be planned.
    rate = next((rate for rate in rates if rate >= SLOWEST_COUNTED), DEFAULT_RATE)
    numbers = np.arange(len(decoded), dtype=np.int64)
    warning = f"timestamps are unusable: frames are counted, at {float(rate):g} a second"
    return Timeline("ordinal", 1 / rate, numbers, numbers[:1], warnings=(warning,))


def _trusted_keys(track: Track, stream: VideoStream, first: VideoFrame) -> NDArray[np.int64]:
    """Ticks of the key frames at which decoding may start; none where only the start of the file will do."""
    codec = stream.codec_context.codec
    all_flagged = len(track.key_pts) == track.packets > 1
    # AVI calls every packet of some codecs a key frame.
    mistaken = all_flagged and not (codec.intra_only or codec.canonical_name in ALL_KEY_CODECS)
    # The palette comes with the first packet, or with those at which it changes.
    if mistaken or first.format.name == "pal8":
        return np.empty(0, dtype=np.int64)
    unfinished = track.unfinished_keys()
    return np.asarray([key for key in track.key_pts if key not in unfinished], dtype=np.int64)


def _is_plausible(frame_pts: NDArray[np.int64], time_base: Fraction, promised_s: Fraction | None) -> bool:
    """Whether the clock does not jump: a frame shown for hours is a still picture, which headers know of."""
    span_s = int(frame_pts[-1] - frame_pts[0]) * time_base
    still_s = int(np.diff(frame_pts).max(initial=0)) * time_base
    if span_s > LONGEST_VIDEO_S:
        return False
    return still_s <= UNPROMISED_STILL_S or promised_s is None or span_s <= 2 * promised_s + UNPROMISED_STILL_S


def _packets_tell(track: Track, stream: VideoStream) -> bool:
    """Whether each packet's tick is that of the one frame it shows."""
    pts = np.frombuffer(track.pts, dtype=np.int64)
    if track.unclear or track.without_tick or not len(pts) or len(np.unique(pts)) < len(pts):
        return False
    # Frames that are put out in another order than they are coded, under ticks that increase in coding order: the
    # container (AVI, for one) holds decoding times only.
    return not (stream.codec_context.reorder_depth and np.all(np.diff(pts) > 0))


def _with_missing(found: Timeline, stream: VideoStream, container: InputContainer, track: Track) -> Timeline:
    """Add the ticks of the few pictures that a strictly regular stream lacks: their packets were lost.

    AVI repeats a picture by leaving out the next, so a hole there is meant.
    """
    numbered = stream.codec_context.codec.canonical_name in NUMBERED_CODECS
    # A cut leaves no gap in the decoding times; a lost packet does.
    decode_steps = np.diff(track.last_dts)
    lost = len(decode_steps) > 0 and decode_steps.max() > 1.5 * np.median(decode_steps)
    cut_frames = CUT_FRAMES if numbered and not lost else 1
    meant = np.union1d(found.frame_pts, np.asarray(track.repeats, dtype=np.int64))
    missing = missing_ticks(meant, cut_frames) if container.format.name != "avi" else ()
    if not missing:
        return found
    step = round(float(np.median(np.diff(found.frame_pts))))
    return replace(
        found,
        frame_pts=np.union1d(found.frame_pts, np.asarray(missing, dtype=np.int64)),
        missing_pts=missing,
        missing_step=0 if numbered else step,
        warnings=(*found.warnings, f"{counted(len(missing), 'picture')} missing where the rate is otherwise constant"),
    )


def missing_ticks(frame_pts: NDArray[np.int64], cut_frames: int) -> tuple[int, ...]:
    """Where pictures are missing in a stream of constant rate; nothing where its rate is not constant.

    Args:
        frame_pts: increasing.
        cut_frames: so many steps at the end may have holes.
    """
    steps = np.diff(frame_pts)
    if len(steps) < FEWEST_REGULAR:
        return ()
    step = float(np.median(steps))
    steps = steps[:-cut_frames]
    holes = np.flatnonzero(steps > 1.5 * step)
    if len(holes) > 2 + len(steps) // 1000:
        return ()
    regular = np.delete(steps, holes)
    mean = float(regular.mean())
    counts = np.rint(steps[holes] / mean).astype(int)
    # Ticks are rounded, those of Matroska to milliseconds.
    in_time = np.abs(steps[holes] - counts * mean) <= 1.5
    if np.abs(regular - mean).max(initial=0) > 1.5 or not in_time.all() or counts.max(initial=0) > LONGEST_HOLE:
        return ()
    return tuple(
        int(frame_pts[hole]) + round(int(steps[hole]) * place / int(count))
        for hole, count in zip(holes, counts, strict=True)
        for place in range(1, int(count))
    )


def decode_all(uri: str, stream_index: int) -> Iterator[VideoFrame]:
    """Every frame of a stream from the start of its file, stepping over packets that do not decode."""
    source = PacketSource(uri, stream_index)
    try:
        backend = LibavBackend(source.stream, strict=False)
        while (found := source.read()) is not None:
            yield from backend.send(found.packet).frames
        yield from backend.drain().frames
    finally:
        source.close()


def missing_tail(
    container: InputContainer, stream: VideoStream, track: Track, timeline: Timeline
) -> tuple[int, tuple[str, ...]]:
    """Compare what the header promises with what was found.

    A file counts as cut off where the video ends clearly before the promised end (by more than a second and a fiftieth
    of the whole), and, where only the whole container promises, no other stream gets there either. Anything less is a
    header that lies.

    Returns:
        Nanoseconds that a cut-off file lacks (0 where it is whole), and a warning where header and file differ.
    """
    warnings: tuple[str, ...] = ()
    if stream.frames and stream.frames != len(timeline.frame_pts):
        warnings = (f"the header says {counted(stream.frames, 'frame')}, found {len(timeline.frame_pts)}",)
    whole = stream.frames and track.packets >= stream.frames
    if whole:
        return 0, warnings
    promised_s = max(_promised_by_stream(stream), Fraction(container.duration or 0, 1_000_000))
    tail_s = promised_s - timeline.end_s
    if tail_s <= _tolerance_s(promised_s):
        return 0, warnings
    if _promised_by_stream(stream) < promised_s and _others_reach(container, promised_s):
        return 0, warnings
    warnings += (
        f"cut off: the header promises {float(promised_s):.1f} s, the video ends at {float(timeline.end_s):.1f} s",
    )
    return int(tail_s * NS_PER_S), warnings


def _tolerance_s(promised_s: Fraction) -> Fraction:
    return max(TAIL_TOLERANCE_S, promised_s * TAIL_TOLERANCE_SHARE)


def _promised_by_stream(stream: VideoStream) -> Fraction:
    by_duration = stream.duration * stream.time_base if stream.duration and stream.time_base else Fraction(0)
    by_count = stream.frames / stream.average_rate if stream.frames and stream.average_rate else Fraction(0)
    return max(Fraction(by_duration), Fraction(by_count))


def _others_reach(container: InputContainer, promised_s: Fraction) -> bool:
    """Whether sound or subtitles go on to the promised end, so that only the video is shorter."""
    others = [stream for stream in container.streams if stream.type in ("audio", "subtitle")]
    start_s = Fraction(container.start_time or 0, 1_000_000)
    limit_s = promised_s - _tolerance_s(promised_s)
    container.seek(container.start_time or 0)
    for packet in container.demux(*others) if others else ():
        if packet.pts is not None and packet.time_base and packet.pts * packet.time_base - start_s > limit_s:
            return True
    return False
