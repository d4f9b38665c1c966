"""What a file holds, found once: small enough to keep beside the plan, and cut down to what one unit needs.

An hour at a constant rate is a handful of numbers: ticks are kept as runs of equal steps.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.values import ClipSpec, PicturePolicy, VideoInfo, VideoTiming
from pipeline.video.keys import keys_of

FORMAT = 1
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


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoIndex:
    """The times of a video's pictures and where decoding may start."""

    timing: VideoTiming
    """Without its address, which may change, and its keys, which are here as runs."""
    frames: TickRuns
    keys: TickRuns

    def to_bytes(self) -> bytes:
        """For a file: compressed JSON, no code."""
        timing = asdict(self.timing)
        del timing["uri"], timing["key_pts"]
        data = {"format": FORMAT, "timing": timing, "frames": asdict(self.frames), "keys": asdict(self.keys)}
        return zlib.compress(json.dumps(data, default=str, sort_keys=True).encode(), 6)

    @property
    def frame_pts(self) -> NDArray[np.int64]:
        """Ticks of all frames in display order."""
        return self.frames.ticks()

    def timing_at(self, uri: str, clips: Sequence[ClipSpec] = ()) -> VideoTiming:
        """What decoding needs of the video at `uri`, with the keys for `clips` alone where some are named."""
        whole = replace(self.timing, uri=uri, key_pts=self.keys.ticks())
        return unit_timing(whole, clips) if clips else whole


def index_of(info: VideoInfo) -> VideoIndex:
    """The index of a scanned video."""
    return VideoIndex(
        timing=replace(timing_of(info), uri="", key_pts=np.empty(0, dtype=np.int64)),
        frames=runs_of(info.frame_pts),
        keys=runs_of(info.key_pts),
    )


def read_index(data: bytes) -> VideoIndex:
    """An index from its file.

    Raises:
        DecodeError: it is damaged, or of another version (`corrupt`).
    """
    try:
        content = json.loads(zlib.decompress(data))
        if content["format"] != FORMAT:
            raise DecodeError("corrupt", f"its format is {content['format']}, not {FORMAT}: scan the video again")
        timing = _timing(content["timing"])
        frames, keys = (TickRuns(**{k: tuple(v) for k, v in content[name].items()}) for name in ("frames", "keys"))
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DecodeError("corrupt", f"the index is damaged ({error}): scan the video again") from error
    return VideoIndex(timing=timing, frames=frames, keys=keys)


def _timing(data: dict[str, Any]) -> VideoTiming:
    picture = dict(data.pop("picture"))
    picture["pixel_aspect"] = Fraction(picture["pixel_aspect"])
    data = {name: data[name] for name in (f.name for f in fields(VideoTiming)) if name in data}
    data["time_base"] = Fraction(data["time_base"])
    data["key_waits"] = tuple((int(key), int(whole)) for key, whole in data["key_waits"])
    data["missing_pts"] = tuple(data["missing_pts"])
    return VideoTiming(uri="", key_pts=np.empty(0, dtype=np.int64), picture=PicturePolicy(**picture), **data)


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
        key_waits=info.key_waits,
        missing_pts=info.missing_pts,
        missing_step=info.missing_step,
    )


def unit_timing(timing: VideoTiming, clips: Sequence[ClipSpec]) -> VideoTiming:
    """`timing` with the key frames that decoding `clips` may need: what travels with a unit."""
    if timing.timestamps == "ordinal" or not clips:
        return timing
    first, last = clips[0].frame_pts[0], clips[-1].frame_pts[-1]
    keys = keys_of(timing.key_pts, timing.key_waits).needed_for(first, last)
    chosen = set(keys.ticks.tolist())
    return replace(timing, key_pts=keys.ticks, key_waits=tuple(pair for pair in timing.key_waits if pair[0] in chosen))


def is_one_piece(info: VideoInfo) -> bool:
    """Whether a video has so few key frames that one worker should decode all of it, in one pass."""
    if info.timestamps == "ordinal":
        return True
    span_s = (info.last_pts - info.start_pts) * info.time_base
    return span_s > FEW_KEYS_S * max(len(info.key_pts), 1)
