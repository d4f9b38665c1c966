"""What scanning found of a video, kept in the run folder: a worker reads it when it opens the video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.errors import DecodeError
from pipeline.shards.publish import publish
from pipeline.values import VideoInfo
from pipeline.video.index import pack_info, unpack_info


def index_path(out: Path, video_id: str) -> Path:
    """Where the index of a video is; in folders of at most 256, because a run may have a million."""
    return out / "index" / video_id[:2] / f"{video_id}.index"


def has_index(out: Path, video_id: str) -> bool:
    """Whether the video was scanned before."""
    return index_path(out, video_id).is_file()


def write_index(out: Path, info: VideoInfo) -> None:
    """Store an index.

    Raises:
        OSError: the run folder cannot be written.
    """
    with publish(index_path(out, info.source.video_id)) as stream:
        stream.write(pack_info(info))


def read_index(out: Path, video_id: str, uri: str) -> VideoInfo:
    """The index of a video, with the address at which it is today.

    Raises:
        DecodeError: it cannot be read.
    """
    path = index_path(out, video_id)
    try:
        info = unpack_info(path.read_bytes())
    except OSError as error:
        raise DecodeError("io", f"the index {path} cannot be read ({error}): scan {uri} again") from error
    return replace(info, source=replace(info.source, uri=uri))
