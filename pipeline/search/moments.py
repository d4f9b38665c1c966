"""The moment of a match between sampled frames: looked up in the pictures of the video itself.

A run samples one frame a second, say, and a shot may begin and end between two of them. Where the query is a picture of
the video, the frame that it was taken from is found by comparing small pictures; where it is not, no frame comes close,
and the time of the most similar sampled frame stands.

Letters: T frames, Q pictures of the query, K = 3 * SIDE_PX * SIDE_PX values of a small picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.plan.index_file import read_index
from pipeline.search.match import Match
from pipeline.search.stills import frames_at, times_ns, whole_pictures
from pipeline.store import Where
from pipeline.video.resize import resize_picture
from pipeline.video_info import VideoInfo

AROUND_NS = 1_000_000_000
"""Frames this near to a likely one are looked at."""
ALWAYS_LOOKED_AT = 3
"""Of the matches."""
SIDE_PX = 24
SAME_CORRELATION = 0.9
"""Small pictures that correlate less are not one picture at two sizes and qualities."""


def at_very_frames(
    matches: Sequence[Match], pictures: Sequence[NDArray[np.uint8]], out: Where, run: dict[str, Any]
) -> list[Match]:
    """Matches with times as `at_the_very_frame` finds them, best first: the first few, and on while it finds them.

    What is the same picture ranks before what is only like it, so the rest need no look into their videos.
    """
    found = list(matches)
    for number, match in enumerate(matches):
        found[number] = at_the_very_frame(match, pictures, out, run)
        if number + 1 >= ALWAYS_LOOKED_AT and found[number] is match:
            break
    return found


def at_the_very_frame(match: Match, pictures: Sequence[NDArray[np.uint8]], out: Where, run: dict[str, Any]) -> Match:
    """A match with the time of the frame that one of the pictures shows, where it shows one near a likely frame.

    Args:
        match: Of a search by pictures.
        pictures: (H, W, 3) uint8 RGB each, of any size.
        out: Where the run lives.
        run: run.json's content.
    """
    spec = whole_pictures(run, SIDE_PX, SIDE_PX)
    try:
        info = read_index(out, match.video_id, match.uri)
        near = frames_near(info, match)
        if not len(near):
            return match
        frames_TK = _standardised(frames_at(info, info.frame_pts[near].tolist(), spec))
    except DecodeError:
        # The video is elsewhere by now: what the cache says is all there is to say.
        return match
    wanted_QK = _standardised(np.stack([resize_picture(p, (p.shape[0], p.shape[1]), spec) for p in pictures]))
    correlation_T = (frames_TK @ wanted_QK.T).max(axis=1) / frames_TK.shape[1]
    best = int(correlation_T.argmax())
    if correlation_T[best] < SAME_CORRELATION:
        return match
    return replace(match, time_ns=int(times_ns(info)[near[best]]))


def frames_near(info: VideoInfo, match: Match) -> NDArray[np.int64]:
    """Numbers of the match's frames within AROUND_NS of a likely one, increasing."""
    time_F = times_ns(info)
    is_near_F = np.zeros(len(time_F), dtype=bool)
    for likely_ns in match.likely_ns:
        is_near_F |= np.abs(time_F - likely_ns) <= AROUND_NS
    return np.flatnonzero(is_near_F & (time_F >= match.start_ns) & (time_F < match.end_ns))


def _standardised(pictures_THW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(T, K) of mean 0 and variance 1 a channel, so that neither brightness nor a conversion of colours counts."""
    values = pictures_THW3.astype(np.float32)
    centred = values - values.mean(axis=(1, 2), keepdims=True)
    scaled: NDArray[np.float32] = centred / (centred.std(axis=(1, 2), keepdims=True) + 1)
    return scaled.reshape(len(values), -1)
