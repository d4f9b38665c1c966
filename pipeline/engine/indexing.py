"""The index of a video in the run folder: made by the scan, read before decoding, and made again where it is lost."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from pipeline.errors import DecodeError, StoreError
from pipeline.inputs.named import Input, VideoSource
from pipeline.plan.index_file import has_index, read_index, write_index
from pipeline.plan.spans import id_of_part, split_address, split_id
from pipeline.progress import made_progress
from pipeline.store import Store
from pipeline.video_info import VideoInfo

log = logging.getLogger(__name__)
STORE_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)


def scan_input(out: Store, source: Input) -> VideoInfo:
    """What a video holds: it is identified, and scanned unless its index is there already; of a part, its own id.

    Raises:
        DecodeError: it cannot be read.
        StoreError: the run folder cannot be written.
    """
    from pipeline.inputs.sources import has_changed
    from pipeline.video import scan_video

    found = replace(_identified(source.uri), stamp=source.stamp)
    info = _known(out, found)
    if info is None:
        info = scan_video(found)
        if has_changed(source):
            raise DecodeError("io", "it changes while it is read: extract it again when it is whole")
        _store(out, info)
    part = replace(found, video_id=id_of_part(found.video_id, split_address(source.uri)[1]))
    return replace(info, source=part)


def info_to_decode(out: Store, video_id: str, uri: str) -> VideoInfo:
    """What scanning found; found again where it was lost.

    Raises:
        DecodeError: the video cannot be read, or is not there any more.
        StoreError: the run folder cannot be written.
    """
    from pipeline.video import scan_video

    try:
        return read_index(out, video_id, uri)
    except DecodeError as error:
        found = _identified(uri)
        if found.video_id != split_id(video_id)[0]:
            raise error
        info = scan_video(found)
        _store(out, info)
        return replace(info, source=replace(found, video_id=video_id))


def _identified(uri: str) -> VideoSource:
    from pipeline.inputs.sources import identify

    try:
        return identify(uri)
    except (OSError, ValueError) as error:
        raise DecodeError("io", f"cannot be read: {error or type(error).__name__}") from error


def _known(out: Store, found: VideoSource) -> VideoInfo | None:
    """What an earlier scan of the same content found; None where there was none, or its record is damaged."""
    if not has_index(out, found.video_id):
        return None
    try:
        return read_index(out, found.video_id, found.uri)
    except DecodeError as error:
        log.warning("%s; scanned again", error)
        return None


def _store(out: Store, info: VideoInfo) -> None:
    """Write an index, again while somebody may make room for it.

    Raises:
        StoreError: it stays impossible.
    """
    for pause_s in (*STORE_PAUSES_S, None):
        try:
            return write_index(out, info)
        except OSError as error:
            if pause_s is None:
                raise StoreError(f"the run folder cannot be written: {error}") from error
            log.warning("the run folder cannot be written: %s; trying again in %.0f s", error, pause_s)
            made_progress()
            time.sleep(pause_s)
