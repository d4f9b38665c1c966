"""Clips to their frames: an open video, from which units are decoded clip by clip.

A clip's bytes depend on the clip alone, however clips are grouped. Clean frames come out the same from any pass; a clip
that shows any sign of damage is decoded once more by itself, one frame after the other from its own key frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.decode.failures import decode_errors
from pipeline.decode.motion import MotionMeter
from pipeline.decode.packets import OpenStream
from pipeline.decode.passes import Damage, Display, linear_frames, ordinal_frames, sparse_frames
from pipeline.decode.picture import shown_size, to_upright_rgb
from pipeline.decode.plan import governing_key, plan_runs
from pipeline.decode.resize import resize_picture
from pipeline.errors import DecodeError
from pipeline.values import ClipSpec, DecodedClip, MotionSource, PictureSpec, VideoTiming

NS_PER_S = 1_000_000_000
MOTION_OFF: MotionSource = "none"
SPARSE_TRIALS = 2
"""Clips that come out clean only from the linear pass, before the sparse one is given up for a video."""


@dataclass(frozen=True, slots=True)
class Showing:
    """The pictures of one clip, and how they came about."""

    rows: list[NDArray[np.uint8]]
    decoded: int
    """Frames that came out under their own tick."""
    damaged: int
    """Frames that libavcodec marked corrupt, or that stand in for one that did not come out."""


Shown = tuple[ClipSpec, Showing, MotionMeter | None]


def open_video(timing: VideoTiming) -> OpenVideo:
    """Open a scanned video for decoding; use it in a `with` statement.

    Raises:
        DecodeError: the file cannot be opened.
    """
    return OpenVideo(timing)


class OpenVideo:
    """A video held open, so that consecutive units of it need not open it again."""

    def __init__(self, timing: VideoTiming) -> None:
        self.timing = timing
        with decode_errors(timing.uri):
            self._stream = OpenStream(timing.uri, timing.stream_index)
        self._second: OpenStream | None = None
        """For decoding clips alone, so that the pass in progress keeps its place; opened when first needed."""
        self._reformatter = VideoReformatter()
        self._sparse_trials = SPARSE_TRIALS
        self._counting: Display | None = None
        """The one pass over a stream without usable ticks; it goes on from unit to unit."""

    def __enter__(self) -> OpenVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file and the decoder."""
        self._stream.close()
        if self._second is not None:
            self._second.close()

    def decode(self, clips: Sequence[ClipSpec], picture: PictureSpec, *, motion: bool = False) -> Iterator[DecodedClip]:
        """Yield the frames of consecutive clips, one clip at a time.

        Args:
            clips: in order; those of one unit.
            picture: the size that the encoder wants.
            motion: also measure motion on the patch grid.

        Raises:
            DecodeError: not one frame of a clip can be decoded, or the file cannot be read; the clips before it were
                yielded.
        """
        with decode_errors(self.timing.uri):
            shown_clips = self._show_moving(clips, picture) if motion else self._show_still(clips, picture)
            for clip, shown, meter in shown_clips:
                if not shown.decoded:
                    raise DecodeError("corrupt", f"{self.timing.uri}: no frame of clip {clip.index} can be decoded")
                yield self._clip(clip, shown, meter)

    def _show_still(self, clips: Sequence[ClipSpec], picture: PictureSpec) -> Iterator[Shown]:
        display, damage = self._start(clips)
        for clip in clips:
            shown = self._show(clip, display, picture)
            if self._is_doubtful(clip, shown, damage):
                shown = self._show_alone(clip, picture)
            yield clip, shown, None

    def _show_moving(self, clips: Sequence[ClipSpec], picture: PictureSpec) -> Iterator[Shown]:
        """Every frame of each clip is decoded: motion adds up over all of them."""
        for clip in clips:
            meter = MotionMeter(self.timing, picture, clip.frame_pts)
            if self.timing.timestamps == "ordinal":
                yield clip, self._show(clip, self._start([clip])[0], picture), meter
                continue
            frames = linear_frames(self._open_second(), clip.frame_pts[0], self.timing.key_pts, Damage())
            yield clip, self._show(clip, Display(meter.watch(frames)), picture), meter

    def _open_second(self) -> OpenStream:
        if self._second is None:
            self._second = OpenStream(self.timing.uri, self.timing.stream_index, vectors=True)
        return self._second

    def _start(self, clips: Sequence[ClipSpec]) -> tuple[Display, Damage]:
        """Begin a pass over the frames of `clips`."""
        damage = Damage()
        targets = sorted({pts for clip in clips for pts in clip.frame_pts})
        if self.timing.timestamps == "ordinal":
            if self._counting is None or (targets and not self._counting.is_before(targets[0])):
                self._counting = Display(ordinal_frames(self._open_second()))
            return self._counting, damage
        keys = self.timing.key_pts
        if targets and (not self._sparse_trials or not len(keys)):
            return Display(linear_frames(self._stream, targets[0], keys, damage)), damage
        runs = plan_runs(targets, keys)
        return Display(sparse_frames(self._stream, runs, damage, skip=self.timing.skip_nonreference)), damage

    def _show(self, clip: ClipSpec, display: Display, picture: PictureSpec) -> Showing:
        """Take a clip's frames as a player shows them: for one that does not come out, the one before stays."""
        rows: list[NDArray[np.uint8] | None] = []
        decoded = damaged = 0
        for pts in clip.frame_pts:
            frame = display.at(pts)
            came = frame is not None and frame.pts == pts
            decoded += came
            damaged += not came or (frame is not None and frame.is_corrupt)
            # Shrunk at once: sixty full pictures may not fit in memory.
            rows.append(None if frame is None else self._row(frame, picture))
        first = next((row for row in rows if row is not None), None)
        shown = [] if first is None else [first if row is None else row for row in rows]
        return Showing(shown, decoded=decoded, damaged=damaged)

    def _is_doubtful(self, clip: ClipSpec, shown: Showing, damage: Damage) -> bool:
        if self.timing.timestamps == "ordinal":
            return False
        # Damage after the clip counts too: its last frame may refer to a later one.
        keys = self.timing.key_pts
        first = int(keys[governing_key(clip.frame_pts[0], keys)]) if len(keys) else clip.frame_pts[0]
        return shown.damaged > 0 or damage.since(first)

    def _show_alone(self, clip: ClipSpec, picture: PictureSpec) -> Showing:
        damage = Damage()
        frames = linear_frames(self._open_second(), clip.frame_pts[0], self.timing.key_pts, damage)
        shown = self._show(clip, Display(frames), picture)
        if not shown.damaged and self._sparse_trials and not damage.pts:
            self._sparse_trials -= 1
        return shown

    def _row(self, frame: VideoFrame, picture: PictureSpec) -> NDArray[np.uint8]:
        policy = self.timing.picture
        return resize_picture(to_upright_rgb(frame, policy, self._reformatter), shown_size(frame, policy), picture)

    def _clip(self, clip: ClipSpec, shown: Showing, meter: MotionMeter | None) -> DecodedClip:
        tick_ns = self.timing.time_base * NS_PER_S
        times = [int((pts - self.timing.start_pts) * tick_ns) for pts in clip.frame_pts]
        frames, frame_time_ns = np.stack(shown.rows), np.asarray(times, dtype=np.int64)
        motion, source = meter.read(frames, frame_time_ns) if meter else (None, MOTION_OFF)
        return DecodedClip(
            spec=clip,
            frames=frames,
            frame_time_ns=frame_time_ns,
            damaged_frames=shown.damaged,
            motion=motion,
            motion_source=source,
        )
