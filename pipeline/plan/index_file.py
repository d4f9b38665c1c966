"""What scanning found of a video, kept in the run folder: a worker reads it when it opens the video."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DecodeError
from pipeline.shards.publish import publish
from pipeline.values import PicturePolicy, VideoInfo, VideoSource

ARRAYS = ("key_pts", "frame_pts")


def index_path(out: Path, video_id: str) -> Path:
    """Where the index of a video is; in folders of at most 256, because a run may have a million."""
    return out / "index" / video_id[:2] / f"{video_id}.npz"


def has_index(out: Path, video_id: str) -> bool:
    """Whether the video was scanned before."""
    return index_path(out, video_id).is_file()


def write_index(out: Path, info: VideoInfo) -> None:
    """Store an index: its ticks as compressed differences, all else as JSON."""
    about = asdict(info)
    steps = {name: np.diff(about.pop(name), prepend=0) for name in ARRAYS}
    text = np.frombuffer(json.dumps(about, default=str).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=text, allow_pickle=False, **steps)
    with publish(index_path(out, info.source.video_id)) as stream:
        stream.write(buffer.getvalue())


def read_index(out: Path, video_id: str, uri: str) -> VideoInfo:
    """The index of a video, with the address at which it is today.

    Raises:
        DecodeError: it cannot be read.
    """
    path = index_path(out, video_id)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.cumsum(file[name]) for name in ARRAYS}
            about: dict[str, Any] = json.loads(file["about"].tobytes())
        return replace(_info(about | arrays), source=VideoSource(**about["source"] | {"uri": uri}))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DecodeError("io", f"the index {path} cannot be read ({error}): scan {uri} again") from error


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
