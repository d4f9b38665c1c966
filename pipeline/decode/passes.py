"""A decode plan carried out: frames of one stream in display order, sparsely or one after the other.

Both passes give the same pixels for an undamaged stream. The sparse pass leaves out what no wanted frame needs; the
linear one decodes everything from a start that it has checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import av.error
import numpy as np
from av import VideoFrame
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.decode.bitstream import NAL_CODECS
from pipeline.decode.failures import failure_class
from pipeline.decode.packets import OpenStream
from pipeline.decode.plan import Run, starting_points

SEEK_BEYOND_S = 10
"""A gap between runs that is sought across; a shorter one is read through, which is cheaper."""


@dataclass(slots=True)
class Damage:
    """Ticks at which a pass met data that would not decode, or decoded with errors."""

    pts: list[int] = field(default_factory=list)

    def since(self, first: int) -> bool:
        """Whether anything from tick `first` on was damaged, as far as the pass has come."""
        return any(pts >= first for pts in self.pts)


class Display:
    """What is on display while frames come in."""

    def __init__(self, frames: Iterator[VideoFrame]) -> None:
        self._frames = frames
        self._shown: VideoFrame | None = None
        self._next: VideoFrame | None = None

    def at(self, pts: int) -> VideoFrame | None:
        """The last frame at or before `pts`, which may not go back from call to call."""
        while (coming := self._next or next(self._frames, None)) is not None and _shown_at(coming) <= pts:
            self._shown, self._next = coming, None
        self._next = coming
        return self._shown

    def is_before(self, pts: int) -> bool:
        """Whether the frame at `pts` may still be asked for."""
        return self._shown is None or _shown_at(self._shown) <= pts


def _shown_at(frame: VideoFrame) -> int:
    # A frame without a tick is never asked for, and is passed over.
    return frame.pts if frame.pts is not None else -(1 << 62)


def sparse_frames(stream: OpenStream, runs: Sequence[Run], damage: Damage, *, skip: bool) -> Iterator[VideoFrame]:
    """Decode only what `runs` need: from each key frame to its last wanted frame, without the pictures none refers to.

    Args:
        stream: where to read.
        runs: increasing.
        damage: is added to.
        skip: leave out non-reference pictures that are not wanted.

    Yields:
        The wanted frames, increasing; one that the stream will not give is left out.
    """
    wanted = {pts for run in runs for pts in run.targets}
    # The second field of a picture may come in a packet without a tick of its own.
    needed = wanted | {None}
    unsent = set(wanted)
    running = False
    for run in runs:
        fresh = not running or stream.key_pts is None or stream.key_pts < run.key_pts
        if fresh:
            if running:
                yield from _drain(stream, wanted, damage)
            running = _jump(stream, run.key_pts)
            if not running:
                damage.pts.append(run.key_pts)
                continue
        while unsent.intersection(run.targets) and (packet := stream.read()) is not None:
            unsent.discard(_tick(packet))
            stream.skip_nonreference(skip and not packet.is_keyframe and packet.pts not in needed)
            for frame in _decode(stream, packet, damage):
                if fresh and not _is_start(stream, frame):
                    damage.pts.append(run.key_pts)
                fresh = False
                if frame.pts in wanted:
                    yield frame
            if packet.dts is not None and packet.dts > run.targets[-1]:
                # Decoding times increase and no picture is shown before it is decoded: the rest of this run is not
                # there.
                unsent.difference_update(run.targets)
    if running:
        yield from _drain(stream, wanted, damage)


def linear_frames(stream: OpenStream, target: int, key_pts: NDArray[np.int64], damage: Damage) -> Iterator[VideoFrame]:
    """Decode every frame, from a start whose first frame is at or before `target`.

    Starting at a key frame is not always exact: containers call frames so that are none, and a stream that refreshes
    its pictures bit by bit shows nothing for a while. So the first frame that comes out decides; where it is too late,
    start earlier.
    """
    for start in starting_points(target, key_pts):
        if start is None:
            stream.rewind()
        elif not stream.seek_to(start):
            continue
        damage.pts.clear()
        frames = _all_frames(stream, damage)
        first = next(frames, None)
        if first is None or first.pts is None:
            continue
        if start is None or (first.pts <= target and not first.is_corrupt and _is_start(stream, first)):
            yield first
            yield from frames
            return


def ordinal_frames(stream: OpenStream) -> Iterator[VideoFrame]:
    """Decode every frame from the start of the file, numbering them in the order they come out."""
    stream.rewind()
    for number, frame in enumerate(_all_frames(stream, Damage())):
        frame.pts = number
        yield frame


def _all_frames(stream: OpenStream, damage: Damage) -> Iterator[VideoFrame]:
    stream.skip_nonreference(False)
    while (packet := stream.read()) is not None:
        yield from _decode(stream, packet, damage)
    yield from _decode(stream, None, damage)


def _drain(stream: OpenStream, wanted: set[int], damage: Damage) -> Iterator[VideoFrame]:
    for frame in _decode(stream, None, damage):
        if frame.pts in wanted:
            yield frame


def _jump(stream: OpenStream, key_pts: int) -> bool:
    stream.context.flush_buffers()
    near = stream.key_pts is not None and 0 < key_pts - stream.key_pts < SEEK_BEYOND_S * stream.ticks_per_s
    return (near and stream.forward_to(key_pts)) or stream.seek_to(key_pts)


def _decode(stream: OpenStream, packet: Packet[VideoStream] | None, damage: Damage) -> list[VideoFrame]:
    try:
        frames = stream.decode(packet)
    except av.error.FFmpegError as error:
        if failure_class(error) == "out_of_memory":
            raise
        damage.pts.append(_tick(packet) if packet is not None else stream.key_pts or 0)
        return []
    damage.pts.extend(frame.pts for frame in frames if frame.is_corrupt and frame.pts is not None)
    return frames


def _tick(packet: Packet[VideoStream]) -> int:
    return packet.pts if packet.pts is not None else packet.dts or 0


def _is_start(stream: OpenStream, frame: VideoFrame) -> bool:
    """Whether a decoder that begins here has all it needs; those of NAL codecs hold back frames until they have."""
    return stream.context.codec.canonical_name in NAL_CODECS or bool(frame.key_frame)
