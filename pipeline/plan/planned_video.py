"""A video of the plan, as the plan's table, the scheduler and the report know it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.failed_range import FailedRange
from pipeline.inputs.named import VideoSource


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVideo:
    """One video of the plan: what is known of it, and how many clips it has."""

    source: VideoSource
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    width_px: int = 0
    height_px: int = 0
    rotation_deg: int = 0
    mirrored: bool = False
    has_audio: bool | None = None
    """None where the video was planned before this was looked at."""
    picture_policy: str = ""
    frames_header: int = 0
    frames_found: int = 0
    duration_header_s: float | None = None
    duration_found_s: float = 0.0
    """From the first frame to the last one's timestamp."""
    num_clips: int = 0
    num_instants: int = 0
    start_ns: int = 0
    """Start of the first clip: above 0 where a part of a video is meant."""
    end_ns: int = 0
    """End of the grid: the last clip's end."""
    first_instant: int = 0
    """Of the sampling times of the video, the first that lies in the part that is meant."""
    is_sequential: bool = False
    """Whether most clips can only be reached by decoding what comes before them: one worker then decodes them all."""
    failures: tuple[FailedRange, ...] = ()
    """What the scan already knows to be lost: the whole video, or a tail that the file promises and lacks."""
    warnings: tuple[str, ...] = ()
