"""Damage spreads over what is decoded after it, up to the next key frame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Spreading:
    """Whether it does at the current place of a stream."""

    active: bool = False
    heals_at: int | None = None
    """The tick from which on a later key frame has made it good; None while none has."""
    healing_key: int | None = None
    """The tick of that key frame."""

    def begin(self, tick: int | None) -> None:
        """Damage everything decoded from now on.

        Args:
            tick: of the damaged picture; what is shown before a key frame and coded after it leaves that key as it is.
        """
        if self.active and self.healing_key is not None and tick is not None and tick < self.healing_key:
            return
        self.active, self.heals_at, self.healing_key = True, None, None

    def heal(self, key: int, whole_from: int) -> None:
        """The key frame at tick `key` makes pictures from `whole_from` on good."""
        if self.active:
            self.heals_at, self.healing_key = whole_from, key

    def reaches(self, tick: int) -> bool:
        """Whether the picture at `tick`, were its packet the next, is damaged."""
        return self.active and (self.heals_at is None or tick < self.heals_at)
