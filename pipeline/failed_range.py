"""A part of a video that is lost, and why: one kind of record from the scan to the summary."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import FailureClass


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRange:
    """A part of a video that could not be extracted, and why."""

    video_id: str
    uri: str
    start_ns: int
    end_ns: int
    """Equal to start_ns where nothing is known of the video's length."""
    failure: FailureClass
    message: str
    attempts: int
    stage: str = ""
    """What it was lost in: scan, decode or encode."""
    node: str = ""
    """Where the last attempt ran."""
