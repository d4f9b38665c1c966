"""What decoding needs of a scanned video; small enough to travel with each unit, so that workers do not index again."""

from __future__ import annotations

from pipeline.values import VideoInfo, VideoTiming


def timing_of(info: VideoInfo) -> VideoTiming:
    """The part of `info` that decoding a unit needs."""
    return VideoTiming(
        uri=info.source.uri,
        stream_index=info.stream_index,
        timestamps=info.timestamps,
        time_base=info.time_base,
        start_pts=info.start_pts,
        key_pts=info.key_pts,
        picture=info.picture,
        skip_nonreference=info.skip_nonreference,
    )
