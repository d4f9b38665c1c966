"""What a file holds, found once, as bytes that are small enough to keep beside the plan.

An hour at a constant rate is a handful of numbers: ticks are kept as runs of equal steps.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.inputs.named import VideoSource
from pipeline.video_info import PicturePolicy, VideoInfo, VideoTiming

FORMAT = 1
TICKS = ("frame_pts", "key_pts")
FEW_KEYS_S = 600
"""Mean seconds from key frame to key frame from which on a file is one piece of work."""


@dataclass(frozen=True, slots=True)
class TickRuns:
    """Increasing ticks as runs of equal steps."""

    first: tuple[int, ...]
    """The first tick of each run."""
    step: tuple[int, ...]
    count: tuple[int, ...]

    def ticks(self) -> NDArray[np.int64]:
        """All of them."""
        runs = [
            first + step * np.arange(count, dtype=np.int64)
            for first, step, count in zip(self.first, self.step, self.count, strict=True)
        ]
        return np.concatenate(runs) if runs else np.empty(0, dtype=np.int64)


def runs_of(ticks: NDArray[np.int64]) -> TickRuns:
    """Ticks as runs of equal steps."""
    if not len(ticks):
        return TickRuns((), (), ())
    steps = np.diff(ticks)
    # A run ends where the step to the next tick is another one; the tick after it begins the next run.
    firsts, lengths = [0], []
    place = 0
    changes = [*(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]
    for change in changes:
        if change <= place:
            continue
        lengths.append(change - place + 1)
        place = change + 1
        if place < len(ticks):
            firsts.append(place)
    if len(firsts) > len(lengths):
        lengths.append(len(ticks) - firsts[-1])
    step = [int(steps[first]) if length > 1 else 1 for first, length in zip(firsts, lengths, strict=True)]
    return TickRuns(tuple(int(ticks[first]) for first in firsts), tuple(step), tuple(lengths))


def pack_info(info: VideoInfo) -> bytes:
    """What scanning found, for a small file: compressed JSON, no code."""
    data = {name: value for name, value in asdict(info).items() if name not in TICKS}
    data |= {name: asdict(runs_of(getattr(info, name))) for name in TICKS}
    return zlib.compress(json.dumps({"format": FORMAT, "info": data}, default=str, sort_keys=True).encode(), 6)


def unpack_info(packed: bytes) -> VideoInfo:
    """What `pack_info` packed.

    Raises:
        DecodeError: it is damaged, or of another version (`corrupt`).
    """
    try:
        content = json.loads(zlib.decompress(packed))
        if content["format"] != FORMAT:
            raise DecodeError("corrupt", f"the index has format {content['format']}, not {FORMAT}: scan again")
        return _info(content["info"])
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DecodeError("corrupt", f"the index is damaged ({error}): scan again") from error


def _info(data: dict[str, Any]) -> VideoInfo:
    data |= {name: TickRuns(**{k: tuple(v) for k, v in data[name].items()}).ticks() for name in TICKS}
    rate = data["frame_rate"]
    picture = data["picture"]
    return VideoInfo(
        **data
        | {
            "source": VideoSource(**data["source"]),
            "picture": PicturePolicy(**picture | {"pixel_aspect": Fraction(picture["pixel_aspect"])}),
            "frame_rate": None if rate is None else Fraction(rate),
            "time_base": Fraction(data["time_base"]),
            "key_waits": tuple((key, whole) for key, whole in data["key_waits"]),
            # Indexes from before there were places have none.
            "key_places": tuple((tick, byte) for tick, byte in data.get("key_places", ())),
            "missing_pts": tuple(data["missing_pts"]),
            "warnings": tuple(data["warnings"]),
        }
    )


def timing_of(info: VideoInfo) -> VideoTiming:
    """The part of `info` that decoding needs."""
    return VideoTiming(
        uri=info.source.uri,
        stream_index=info.stream_index,
        timestamps=info.timestamps,
        time_base=info.time_base,
        start_pts=info.start_pts,
        key_pts=info.key_pts,
        picture=info.picture,
        skip_nonreference=info.skip_nonreference,
        shown_hw=(info.height_px, info.width_px),
        key_waits=info.key_waits,
        key_places=info.key_places,
        missing_pts=info.missing_pts,
        missing_step=info.missing_step,
    )


def is_one_piece(info: VideoInfo) -> bool:
    """Whether a video has so few key frames that one worker should decode all of it, in one pass."""
    if info.timestamps == "ordinal":
        return True
    span_s = (info.last_pts - info.start_pts) * info.time_base
    return span_s > FEW_KEYS_S * max(len(info.key_pts), 1)
