"""What scanning found of a video, kept in the run folder: a worker reads it when it opens the video."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import numpy as np

from pipeline.errors import DecodeError
from pipeline.store import Where, open_store
from pipeline.values import PicturePolicy, VideoInfo, VideoSource

ARRAYS = ("key_pts", "frame_pts")


def index_name(video_id: str) -> str:
    """Where the index of a video is; in folders of at most 256, because a run may have a million."""
    return f"index/{video_id[:2]}/{video_id}.npz"


def has_index(out: Where, video_id: str) -> bool:
    """Whether the video was scanned before."""
    return open_store(out).entry(index_name(video_id)) is not None


def write_index(out: Where, info: VideoInfo) -> None:
    """Store an index: its ticks as compressed differences, all else as JSON."""
    about = asdict(info)
    steps = {name: np.diff(about.pop(name), prepend=0) for name in ARRAYS}
    text = np.frombuffer(json.dumps(about, default=str).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=text, allow_pickle=False, **steps)
    open_store(out).put(index_name(info.source.video_id), buffer.getvalue())


def read_index(out: Where, video_id: str, uri: str) -> VideoInfo:
    """The index of a video, with the address at which it is today.

    Raises:
        DecodeError: it cannot be read.
    """
    store, name = open_store(out), index_name(video_id)
    try:
        with np.load(io.BytesIO(store.get(name)), allow_pickle=False) as file:
            arrays = {name: np.cumsum(file[name]) for name in ARRAYS}
            about: dict[str, Any] = json.loads(file["about"].tobytes())
        return replace(_info(about | arrays), source=VideoSource(**about["source"] | {"uri": uri}))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DecodeError("io", f"the index {store.address}/{name} cannot be read ({error})") from error


def _info(data: dict[str, Any]) -> VideoInfo:
    picture = data["picture"] | {"pixel_aspect": Fraction(data["picture"]["pixel_aspect"])}
    rate = data["frame_rate"]
    return VideoInfo(
        **data
        | {
            "source": VideoSource(**data["source"]),
            "picture": PicturePolicy(**picture),
            "frame_rate": None if rate is None else Fraction(rate),
            "time_base": Fraction(data["time_base"]),
            "warnings": tuple(data["warnings"]),
        }
    )
