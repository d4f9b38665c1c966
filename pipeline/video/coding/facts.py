"""What a packet's headers say of it, whatever the codec."""

from __future__ import annotations

from typing import NamedTuple, Protocol

Data = bytes | memoryview


class Coded(NamedTuple):
    """One packet, by its headers."""

    picture: bool | None = True
    """Whether it puts out a picture of its own: not so for the second of two fields, or a frame kept for later; None
    where only decoding can tell."""
    key: bool = False
    """Whether decoding may start here."""
    droppable: bool = False
    """Whether leaving it out changes no other picture."""
    intact: bool = True
    """False where the headers hold no picture that the codec allows."""
    gap: bool = False
    """Whether packets that others refer to are missing between the one before and this."""
    wait: int = 0
    """Of a key: coded pictures until those that come out are whole (a refresh bit by bit); 0 from the first on."""


PLAIN = Coded()
KEY = Coded(key=True)
DROPPABLE = Coded(droppable=True)
BROKEN = Coded(intact=False)
NOTHING = Coded(picture=False)


class HeaderReader(Protocol):
    """Reads the packets of one stream in decoding order."""

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next packet is; `flagged_key` is the container's opinion."""

    def restart(self) -> None:
        """Forget what came before: the next packet is from elsewhere in the stream."""


class NoHeaders:
    """For codecs of which no header is read: the container is believed."""

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """A key frame where the container says so."""
        if not len(data):
            return NOTHING
        return KEY if flagged_key else PLAIN

    def restart(self) -> None:
        """Nothing is kept."""
