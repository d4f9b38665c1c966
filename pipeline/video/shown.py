"""Pictures as they come out of a decoder, and as they are shown at wanted ticks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from av import VideoFrame


@dataclass(frozen=True, slots=True)
class Shown:
    """What is on display at a wanted tick."""

    tick: int
    frame: VideoFrame | None
    """None where nothing came out yet."""
    damaged: bool
    """Whether it is not what the stream meant: damaged, predicted from damage, or in place of a lost picture."""

    @property
    def came(self) -> bool:
        """Whether the frame is that of the tick itself."""
        return self.frame is not None and self.frame.pts == self.tick


class Out(NamedTuple):
    """A picture that came out of the decoder."""

    tick: int
    frame: VideoFrame
    damaged: bool
