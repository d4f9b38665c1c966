"""Clips to their frames: an open video, from which units are decoded clip by clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.values import ClipSpec, DecodedClip, DecoderName, MotionSource, PictureSpec
from pipeline.video.backend import Backend, LibavBackend, has_two_decoders
from pipeline.video.counting import CountingCursor
from pipeline.video.cursor import Cursor
from pipeline.video.failures import decode_errors
from pipeline.video.keys import keys_of
from pipeline.video.motion import MotionMeter, VectorWatch
from pipeline.video.nvdec import NvdecBackend, is_for_nvdec
from pipeline.video.packets import PacketSource
from pipeline.video.picture import PictureMaker
from pipeline.video.resize import fitted
from pipeline.video.shown import Shown
from pipeline.video.torch_picture import TorchPictureMaker, can_show, device_of
from pipeline.video_info import VideoTiming

NS_PER_S = 1_000_000_000
MOTION_OFF: MotionSource = "none"
VECTOR_CODECS = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video"})
"""Those whose decoders export motion vectors."""


def open_video(timing: VideoTiming, decoder: DecoderName = "libav") -> OpenVideo:
    """Open a scanned video for decoding; use it in a `with` statement.

    Args:
        timing: what decoding needs of the scanned video.
        decoder: what decodes it. For `nvdec` without a GPU, its arithmetic is done on the CPU.

    Raises:
        DecodeError: the file cannot be opened.
    """
    return OpenVideo(timing, decoder)


class OpenVideo:
    """A video held open: consecutive units of it go on where the one before ended.

    Args:
        timing: what decoding needs of the scanned video.
        decoder: what decodes it.
    """

    def __init__(self, timing: VideoTiming, decoder: DecoderName = "libav") -> None:
        self.timing = timing
        self._device = device_of(decoder)
        self._keys = keys_of(timing.key_pts, timing.key_waits)
        self._watch = VectorWatch(timing)
        self._reformatter = VideoReformatter()
        self._sources: list[PacketSource] = []
        self._moving: Cursor | CountingCursor | None = None
        """With the codec's motion vectors; opened when first needed."""
        with decode_errors(timing.uri):
            self._still = self._open(vectors=False)

    def __enter__(self) -> OpenVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file and the decoders."""
        for source in self._sources:
            source.close()

    def decode(self, clips: Sequence[ClipSpec], picture: PictureSpec, *, motion: bool = False) -> Iterator[DecodedClip]:
        """Yield the frames of consecutive clips, one clip at a time.

        Args:
            clips: in order; those of one unit.
            picture: the size that the encoder wants, and how pictures are shown.
            motion: also measure motion on the patch grid.

        Raises:
            DecodeError: not one frame of a clip can be decoded, or the file cannot be read; the clips before it were
                yielded.
        """
        picture = fitted(picture, self.timing.shown_hw)
        maker = self._maker(picture)
        with decode_errors(self.timing.uri):
            if motion:
                for clip in clips:
                    yield self._decode_moving(clip, maker)
                return
            ticks = sorted({tick for clip in clips for tick in clip.frame_pts})
            shown = self._still.show(ticks)
            rows = _Rows(maker)
            for clip in clips:
                rows.begin()
                for tick in clip.frame_pts:
                    rows.add(tick, shown)
                yield self._clip(clip, rows)

    def _maker(self, picture: PictureSpec) -> PictureMaker | TorchPictureMaker:
        policy = self.timing.picture
        if self._device is None or not can_show(policy, picture):
            return PictureMaker(policy, picture, self._reformatter)
        return TorchPictureMaker(policy, picture, self._reformatter, self._device)

    def _decode_moving(self, clip: ClipSpec, maker: PictureMaker | TorchPictureMaker) -> DecodedClip:
        """Every frame of the clip is decoded: motion adds up over all of them."""
        if self._moving is None:
            vectors = self._sources[0].codec in VECTOR_CODECS
            self._moving = self._open(vectors=True) if vectors else self._still
        meter, rows = self._measure(clip, maker)
        if any(rows.damaged):
            # Damaged pictures depend on where decoding began: at the clip's own key frame, whatever came before.
            self._moving.restart()
            meter, rows = self._measure(clip, maker)
        return self._clip(clip, rows, meter)

    def _measure(self, clip: ClipSpec, maker: PictureMaker | TorchPictureMaker) -> tuple[MotionMeter, _Rows]:
        assert self._moving is not None
        meter, rows = MotionMeter(self.timing, maker.spec, clip.frame_pts), _Rows(maker)
        self._watch.meter = meter
        rows.begin()
        shown = self._moving.show(clip.frame_pts)
        for tick in clip.frame_pts:
            rows.add(tick, shown)
        return meter, rows

    def _open(self, *, vectors: bool) -> Cursor | CountingCursor:
        timing = self.timing
        span_ticks = int(timing.key_pts[-1] - timing.key_pts[0]) if len(timing.key_pts) else 0
        source = PacketSource(timing.uri, timing.stream_index, timing.key_places, span_ticks)
        self._sources.append(source)
        strict, lenient = self._backends(source.stream, vectors)
        watch = self._watch.see if vectors else None
        if timing.timestamps == "ordinal":
            return CountingCursor(source, strict, watch)
        return Cursor(
            source,
            strict,
            lenient,
            self._keys,
            missing=timing.missing_pts,
            step=timing.missing_step,
            drop=timing.skip_nonreference,
            watch=watch,
        )

    def _backends(self, stream: VideoStream, vectors: bool) -> tuple[Backend, Backend]:
        """What decodes the stream, and what decodes its damaged parts."""
        if self._device is not None and is_for_nvdec(stream, self._device):
            # NVDEC shows nothing, or anything, of damage.
            return NvdecBackend(stream, self._device), LibavBackend(stream, strict=False)
        strict = LibavBackend(stream, vectors=vectors)
        return strict, LibavBackend(stream, strict=False) if has_two_decoders(stream) else strict

    def _clip(self, clip: ClipSpec, rows: _Rows, meter: MotionMeter | None = None) -> DecodedClip:
        if not rows.came:
            raise DecodeError("corrupt", f"{self.timing.uri}: no frame of clip {clip.index} can be decoded")
        tick_ns = self.timing.time_base * NS_PER_S
        times = [int((pts - self.timing.start_pts) * tick_ns) for pts in clip.frame_pts]
        frames, frame_time_ns = rows.stacked(), np.asarray(times, dtype=np.int64)
        motion, source = meter.read(frames, frame_time_ns) if meter else (None, MOTION_OFF)
        return DecodedClip(
            spec=clip,
            frames=frames,
            frame_time_ns=frame_time_ns,
            damaged_frames=sum(rows.damaged),
            is_damaged=np.asarray(rows.damaged, dtype=bool),
            motion=motion,
            motion_source=source,
        )


class _Rows:
    """The pictures of one clip at the encoder's size: shrunk at once, for sixty full pictures may not fit in memory."""

    def __init__(self, maker: PictureMaker | TorchPictureMaker) -> None:
        self._maker = maker
        self._last: tuple[Shown, NDArray[np.uint8] | None] | None = None
        """What was shown last: clips that meet within a frame share it."""
        self.begin()

    def begin(self) -> None:
        """Start a clip."""
        self._rows: list[NDArray[np.uint8] | None] = []
        self.came = 0
        self.damaged: list[bool] = []

    def add(self, tick: int, coming: Iterator[Shown]) -> None:
        """Take what is on display at `tick`; for a picture that never came, the one before it in the clip stays."""
        if self._last is not None and self._last[0].tick == tick:
            shown, row = self._last
        else:
            shown = next(coming)
            row = None if shown.frame is None else self._maker.make(shown.frame)
            self._last = shown, row
        if row is None and self._rows:
            row = self._rows[-1]
        self._rows.append(row)
        self.came += shown.came
        self.damaged.append(shown.damaged)

    def stacked(self) -> NDArray[np.uint8]:
        """(T, height, width, 3) of all pictures; those before the first that came are that one."""
        first = next(row for row in self._rows if row is not None)
        return np.stack([first if row is None else row for row in self._rows])
