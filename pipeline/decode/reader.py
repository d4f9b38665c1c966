"""Clips to their frames: an open video, from which units are decoded clip by clip.

A clip's bytes depend on the clip alone. Clean frames come out the same from any pass; a clip that shows any sign of
damage is decoded once more by itself, one frame after the other from its own key frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.decode.failures import decode_errors
from pipeline.decode.packets import OpenStream
from pipeline.decode.passes import Damage, linear_frames, ordinal_frames, sparse_frames
from pipeline.decode.picture import shown_size, to_upright_rgb
from pipeline.decode.plan import governing_key, plan_runs
from pipeline.decode.resize import resize_picture
from pipeline.errors import DecodeError
from pipeline.values import ClipSpec, DecodedClip, PictureSpec, VideoTiming

NS_PER_S = 1_000_000_000


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
        self._stream = OpenStream(timing.uri, timing.stream_index)
        self._reformatter = VideoReformatter()

    def __enter__(self) -> OpenVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file and the decoder."""
        self._stream.close()

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
            damage = Damage()
            frames = self._main_pass(clips, damage)
            head: VideoFrame | None = None
            rows: dict[int, NDArray[np.uint8]] = {}
            for clip in clips:
                rows = {pts: row for pts, row in rows.items() if pts in clip.frame_pts}
                while (head := head or next(frames, None)) is not None and _pts(head) <= clip.frame_pts[-1]:
                    if _pts(head) in clip.frame_pts and _pts(head) not in rows:
                        rows[_pts(head)] = self._row(head, picture)
                    head = None
                damaged = 0
                if len(rows) < len(clip.frame_pts) or damage.within(self._first_tick(clip), clip.frame_pts[-1]):
                    rows, damaged = self._decode_again(clip, picture)
                    head = None
                    frames = self._main_pass(clips[clips.index(clip) + 1 :], damage)
                yield self._clip(clip, rows, damaged)

    def _main_pass(self, clips: Sequence[ClipSpec], damage: Damage) -> Iterator[VideoFrame]:
        targets = sorted({pts for clip in clips for pts in clip.frame_pts})
        if self.timing.timestamps == "ordinal":
            return ordinal_frames(self._stream, damage)
        runs = plan_runs(targets, self.timing.key_pts)
        return sparse_frames(self._stream, runs, damage, skip=self.timing.skip_nonreference)

    def _first_tick(self, clip: ClipSpec) -> int:
        keys = self.timing.key_pts
        return int(keys[governing_key(clip.frame_pts[0], keys)]) if len(keys) else clip.frame_pts[0]

    def _decode_again(self, clip: ClipSpec, picture: PictureSpec) -> tuple[dict[int, NDArray[np.uint8]], int]:
        """Decode one clip by itself, as a player would show it.

        Returns:
            Its pictures by tick, and how many of them are corrupt or stand in for one that would not decode.
        """
        damage = Damage()
        if self.timing.timestamps == "ordinal":
            frames = ordinal_frames(self._stream, damage)
        else:
            frames = linear_frames(self._stream, clip.frame_pts[0], self.timing.key_pts, damage)
        rows: dict[int, NDArray[np.uint8]] = {}
        missing = list(clip.frame_pts)
        damaged = decoded = 0
        last: VideoFrame | None = None
        for frame in frames:
            while missing and missing[0] < _pts(frame) and last is not None:
                rows[missing.pop(0)] = self._row(last, picture)
                damaged += 1
            last = frame
            if missing and missing[0] == _pts(frame):
                rows[missing.pop(0)] = self._row(frame, picture)
                damaged += frame.is_corrupt
                decoded += 1
            if not missing:
                break
        if not decoded or last is None:
            raise DecodeError("corrupt", f"{self.timing.uri}: no frame of clip {clip.index} can be decoded")
        for pts in missing:
            rows[pts] = self._row(last, picture)
            damaged += 1
        return rows, damaged

    def _row(self, frame: VideoFrame, picture: PictureSpec) -> NDArray[np.uint8]:
        policy = self.timing.picture
        return resize_picture(to_upright_rgb(frame, policy, self._reformatter), shown_size(frame, policy), picture)

    def _clip(self, clip: ClipSpec, rows: dict[int, NDArray[np.uint8]], damaged: int) -> DecodedClip:
        tick_ns = self.timing.time_base * NS_PER_S
        times = [int((pts - self.timing.start_pts) * tick_ns) for pts in clip.frame_pts]
        return DecodedClip(
            spec=clip,
            frames=np.stack([rows[pts] for pts in clip.frame_pts]),
            frame_time_ns=np.asarray(times, dtype=np.int64),
            damaged_frames=damaged,
        )


def _pts(frame: VideoFrame) -> int:
    assert frame.pts is not None
    return frame.pts
