"""What scanning found of a video, kept in the run folder: a worker reads it when it opens the video."""

from __future__ import annotations

from dataclasses import replace

from pipeline.errors import DecodeError
from pipeline.plan.spans import split_address, split_id
from pipeline.store import Where, open_store
from pipeline.video.index import pack_info, unpack_info
from pipeline.video_info import VideoInfo


def index_name(video_id: str) -> str:
    """Where the index of a video is, parts of it included; in folders of at most 256, as a run may have a million."""
    return f"index/{video_id[:2]}/{split_id(video_id)[0]}.index"


def has_index(out: Where, video_id: str) -> bool:
    """Whether the video was scanned before."""
    return open_store(out).entry(index_name(video_id)) is not None


def write_index(out: Where, info: VideoInfo) -> None:
    """Store an index.

    Raises:
        OSError: the run cannot be written.
    """
    open_store(out).put(index_name(info.source.video_id), pack_info(info))


def read_index(out: Where, video_id: str, uri: str) -> VideoInfo:
    """The index of a video or of a part of it, with the address at which all of it is today.

    Raises:
        DecodeError: it cannot be read.
    """
    store, name = open_store(out), index_name(video_id)
    try:
        info = unpack_info(store.get(name))
    except OSError as error:
        raise DecodeError(
            "io", f"the index {store.address}/{name} cannot be read ({error}): scan {uri} again"
        ) from error
    return replace(info, source=replace(info.source, video_id=video_id, uri=split_address(uri)[0]))
