"""Damage spreads over what is decoded after it, up to the next key frame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Spreading:
    """Whether it does at the current place of a stream."""

    active: bool = False
    heals_at: int | None = None
    """The tick from which on a later key frame has made it good; None while none has."""

    def begin(self, tick: int | None) -> None:
        """Damage everything decoded from now on.

        Args:
            tick: of the damaged picture; what is shown before a key frame and coded after it leaves that key as it is.
        """
        if self.active and self.heals_at is not None and tick is not None and tick < self.heals_at:
            return
        self.active, self.heals_at = True, None

    def heal_from(self, tick: int | None) -> None:
        """A key frame makes pictures from `tick` on good."""
        if self.active:
            self.heals_at = tick

    def reaches(self, tick: int) -> bool:
        """Whether the picture at `tick`, were its packet the next, is damaged."""
        return self.active and (self.heals_at is None or tick < self.heals_at)
