"""A clip that was found, and the times in it that are most like the query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A clip that was found."""

    position: int
    """In the cache."""
    uri: str
    video_id: str
    clip_id: str
    start_ns: int
    end_ns: int
    score: float
    """Size-weighted MaxSim, or the cosine of pooled vectors or embeddings: at most 1."""
    time_ns: int | None = None
    """Of the frame that is most like the query; None where only whole clips were compared."""
    likely_ns: tuple[int, ...] = ()
    """Times of the frames that are most like it, best first."""

    def to_json(self) -> dict[str, Any]:
        """As `vtm search --json` prints it, times in seconds."""
        return {
            "uri": self.uri,
            "video_id": self.video_id,
            "clip_id": self.clip_id,
            "start_s": self.start_ns / NS_PER_S,
            "end_s": self.end_ns / NS_PER_S,
            "time_s": None if self.time_ns is None else self.time_ns / NS_PER_S,
            "score": round(self.score, 6),
        }
