"""What work is named by: a clip is two numbers, a unit three."""

from __future__ import annotations

from typing import NamedTuple


class Clip(NamedTuple):
    """One clip of one video."""

    video_id: str
    index: int  # type: ignore[assignment]  # hides a method of tuples that nobody calls

    @property
    def clip_id(self) -> str:
        """`video_id-000042`."""
        return f"{self.video_id}-{self.index:06d}"


class Unit(NamedTuple):
    """Consecutive clips of one video."""

    video_id: str
    first: int
    count: int  # type: ignore[assignment]  # hides a method of tuples that nobody calls

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Its clips, in order."""
        return tuple(Clip(self.video_id, index) for index in range(self.first, self.first + self.count))


class ShardUnit(NamedTuple):
    """Consecutive clips of one video that go into one shard."""

    shard_id: str
    unit: Unit
