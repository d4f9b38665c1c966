"""Streams without usable ticks: pictures are numbered in the order in which they come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from av import VideoFrame

from pipeline.video.backend import Backend
from pipeline.video.packets import PacketSource
from pipeline.video.shown import Out, Shown


class CountingCursor:
    """A position in such a stream.

    Args:
        source: its packets.
        backend: decodes them.
        watch: is shown every frame that comes out, in display order.
    """

    def __init__(
        self, source: PacketSource, backend: Backend, watch: Callable[[VideoFrame], None] | None = None
    ) -> None:
        self._source, self._backend, self._watch = source, backend, watch
        self.restart()

    def restart(self) -> None:
        """Begin at the start of the file."""
        self._outs: Iterator[Out] | None = None
        self._shown: Out | None = None

    def show(self, ticks: Sequence[int]) -> Iterator[Shown]:
        """The pictures of these numbers, increasing.

        Raises:
            DecodeError: the file cannot be read any more.
        """
        for tick in ticks:
            if self._outs is None or (self._shown is not None and self._shown.tick > tick):
                self._backend.flush()
                self._source.rewind()
                self._outs, self._shown = self._decode(), None
            while (self._shown is None or self._shown.tick < tick) and (out := next(self._outs, None)) is not None:
                self._shown = out
                if self._watch is not None:
                    self._watch(out.frame)
            if self._shown is None:
                yield Shown(tick, None, True)
            else:
                yield Shown(tick, self._shown.frame, self._shown.damaged or self._shown.tick != tick)

    def _decode(self) -> Iterator[Out]:
        number, spreading = 0, False
        while True:
            found = self._source.read()
            answer = self._backend.drain() if found is None else self._backend.send(found.packet)
            spreading = spreading or answer.damaged or (found is not None and found.damaged)
            for frame in answer.frames:
                spreading = (spreading and not frame.key_frame) or frame.is_corrupt
                frame.pts = number
                yield Out(number, frame, spreading)
                number += 1
            if found is None:
                return
