"""Pictures that a decoder owes for the packets it was sent, and the damage that spreads among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from av import VideoFrame

from pipeline.video.shown import Out
from pipeline.video.spreading import Spreading


class _Sent(NamedTuple):
    """A packet whose picture is still to come out."""

    damaged: bool
    droppable: bool


class Expected:
    """What is to come out since decoding was started.

    Args:
        whole_from: the tick from which on pictures are whole after the key frame that was started from; None from the
            start of the file.
    """

    def __init__(self, whole_from: int | None = None) -> None:
        self._whole_from = whole_from
        self._sent: dict[int, _Sent] = {}
        self._came_out = False
        self.spreading = Spreading()

    def __contains__(self, tick: int) -> bool:
        return tick in self._sent

    def is_leading(self, tick: int) -> bool:
        """Whether the picture may lack what it refers to, as it is shown before those that are whole."""
        return self._whole_from is not None and tick < self._whole_from

    def add(self, tick: int, *, damaged: bool, droppable: bool) -> None:
        """A packet was sent, the first or a further one of the picture at `tick`."""
        before = tick in self._sent and self._sent[tick].damaged
        self._sent[tick] = _Sent(damaged or before or self.spreading.reaches(tick), droppable)

    def come_out(self, frames: Sequence[VideoFrame]) -> Iterator[Out]:
        """The pictures that a decoder gave, and whether each is damaged."""
        for frame in frames:
            tick = frame.pts
            # A picture without a tick is never asked for.
            if tick is None:
                continue
            leading = self.is_leading(tick)
            sent = self._sent.pop(tick, None)
            damaged = self.spreading.reaches(tick) if sent is None else sent.damaged
            lost = [other for other in self._sent if other < tick]
            if not leading and not damaged and frame.is_corrupt:
                damaged = True
                if sent is None or not sent.droppable:
                    self._spread_back(tick)
            for other in lost:
                gone = self._sent.pop(other)
                if self._came_out and not gone.droppable and not gone.damaged:
                    self._spread_back(tick)
            self._came_out = self._came_out or not leading
            yield Out(tick, frame, damaged)

    def _spread_back(self, tick: int) -> None:
        """Damage was noticed late: what was decoded since is damaged as well."""
        self.spreading.begin(tick)
        self._sent = {other: sent._replace(damaged=True) for other, sent in self._sent.items()}
