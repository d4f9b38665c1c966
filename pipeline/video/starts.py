"""Where decoding of a wanted picture starts, and whether reading on reaches it as well. No pixels, no files.

A stream's key frames say where; what decoding shows of them is noted here: which groups are damaged, and which key
frames are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.video.keys import Keys

TRIALS = 2
"""Wanted pictures of undamaged groups that do not come out, before leaving out anything is given up for a stream."""
START = -1
"""The group of what comes before all key frames: it is decoded from the start of the file."""


class Position(NamedTuple):
    """Where decoding stands that has not passed the wanted picture."""

    start: int
    """Tick of the key frame that it started from; START for the file's start."""
    reached: int
    """The group whose key frame was read last."""
    whole: bool
    """Whether nothing was left out since the start."""
    ended: bool
    """Whether the file was read to its end."""
    drops: bool
    """Whether what no wanted picture needs may be left out at all."""


class Starts:
    """What is known of the groups of one stream.

    Args:
        keys: where decoding may start.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._trials = TRIALS
        self._whole: set[int] = set()
        """Ticks of the keys whose groups are decoded whole: they are damaged, or leaving out failed."""
        self._damaged: set[int] = set()
        """Those of them that are known to be damaged."""
        self._misleading: set[int] = set()
        """Ticks of the keys that do not make pictures whole as they say: their groups belong to the ones before."""

    def governing(self, tick: int) -> int:
        """The group whose key frame makes the picture at `tick` whole."""
        group = self._keys.governing(tick)
        while self._misleading and self.key_tick(group) in self._misleading:
            group -= 1
        return group

    def governing_key(self, tick: int) -> int:
        """The tick of that key frame."""
        return self.key_tick(self.governing(tick))

    def key_tick(self, group: int) -> int:
        """The tick of a group's key frame; START where it has none."""
        return int(self._keys.ticks[group]) if group >= 0 else START

    def group_at(self, key_tick: int | None) -> int:
        """The group of the last key frame at or before a tick; None: before all."""
        return START if key_tick is None else self._keys.position(key_tick)

    def whole_from(self, group: int) -> int | None:
        """From which tick on pictures decoded from a group's key frame are whole; None from the file's start."""
        return int(self._keys.whole_from[group]) if group != START else None

    def heals_from(self, key_tick: int) -> int | None:
        """From which tick on the key frame at this very tick makes pictures whole; None where there is none."""
        group = self.group_at(key_tick)
        return self.whole_from(group) if group >= 0 and self.key_tick(group) == key_tick else None

    def before(self, tick: int, group: int) -> Iterator[int]:
        """Groups before this one from which decoding of `tick` may start, the nearest first."""
        return (start for start in self._keys.starts(tick) if start < group)

    # What decoding has shown.

    def note_whole(self, key: int, *, damaged: bool) -> None:
        """The group of a key is to be decoded whole from now on."""
        self._whole.add(key)
        if damaged:
            self._damaged.add(key)

    def note_misleading(self, key: int) -> None:
        """This key frame does not make pictures whole."""
        self._misleading.add(key)

    def note_missed(self) -> None:
        """A picture of an undamaged group did not come out."""
        self._trials = max(self._trials - 1, 0)

    def is_whole(self, key: int) -> bool:
        """Whether leaving out failed in this group, or it is damaged."""
        return key in self._whole

    def is_damaged(self, key: int) -> bool:
        """Whether this group is known to be damaged."""
        return key in self._damaged

    def is_misleading(self, key: int) -> bool:
        """Whether this key frame was found not to make pictures whole."""
        return key in self._misleading

    @property
    def leaves_out(self) -> bool:
        """Whether the stream's key frames are still relied on, and so anything may be left out."""
        return self._trials > 0

    def is_reached_by(self, at: Position, group: int, *, is_coming: bool, is_spoilt: bool) -> bool:
        """Whether a picture comes by reading on, as it would from its own key frame.

        Args:
            at: where decoding stands.
            group: governs the picture.
            is_coming: whether it is in the decoder, or out of it.
            is_spoilt: whether damage on the way reaches it.
        """
        key = self.key_tick(group)
        if not self.leaves_out and not self.is_damaged(key):
            # Key frames of this stream are not to be relied on: it is read on while that lasts.
            return is_coming or (not at.ended and group <= at.reached + 1)
        if at.whole and at.start == key:
            return True
        if self.is_whole(key):
            return False
        if is_coming:
            return True
        if at.ended or group > at.reached + (not at.drops):
            return False
        return not is_spoilt and (not at.whole or not at.drops)
