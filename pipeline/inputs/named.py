"""What the user named: an input before anything of it is read, and the video source that it turns out to be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One file or object that the user named, before anything of it was read."""

    uri: str
    """A local path, or an address that fsspec opens."""
    size_bytes: int = -1
    """-1 where nobody says."""
    stamp: str = ""
    """Changes when the content does: the time of the last change of a file, the etag of an object. Empty: unknown."""

    @property
    def unread_id(self) -> str:
        """An id for an input whose content, and so whose own id, cannot be known: a hash of its address."""
        return hashlib.sha256(b"unread\0" + self.uri.encode(errors="surrogateescape")).hexdigest()[:32]

    def unread_source(self) -> VideoSource:
        """The source of an input whose content cannot be known."""
        return VideoSource(video_id=self.unread_id, uri=self.uri, size_bytes=-1, stamp=self.stamp)


@dataclass(frozen=True, slots=True)
class Named:
    """An input, and by what it was named."""

    named: str
    """What the user wrote: a folder, a glob, a list."""
    input: Input
    labels: str = ""
    """What a list says of it beside the address, as a JSON object; empty: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """One input file or object."""

    video_id: str
    """32 hex digits derived from the content (size, first and last MiB), never from the path; of a part of a video
    followed by start and end, see `pipeline.plan.spans`."""
    uri: str
    """A local path, or an address that fsspec opens; of a part of a video with start and end."""
    size_bytes: int
    stamp: str = ""
    """Of the input when it was read; see `Input`."""
