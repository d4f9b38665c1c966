"""Search for frames cut from the videos of a run at random times, at another size and as JPEG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import TokenCache
from pipeline.plan.index_file import read_index
from pipeline.search.encoders import PictureEncoder
from pipeline.search.match import Match
from pipeline.search.moments import at_the_very_frame
from pipeline.search.query import query_of_pictures
from pipeline.search.searcher import Searcher
from pipeline.search.stills import frames_at, times_ns, whole_pictures
from pipeline.values import TokenSet

SIZES_PX = ((180, 320), (135, 240), (240, 426), (480, 854))
QUALITIES = (25, 40, 60, 85)
NS_PER_S = 1_000_000_000


def find_frames(out: str, num_frames: int, seed: int) -> dict[str, Any]:
    """How many frames cut from the run's videos are found."""
    cache = TokenCache(out)
    searcher, encoder = Searcher(cache), PictureEncoder(cache.run)
    random = np.random.default_rng(seed)
    clip = sampled = looked_up = 0
    for position in random.integers(len(cache), size=num_frames):
        of = cache.token_set(int(position))
        picture, true_ns = _cut_frame(out, cache.run, of, random)
        match = searcher.search(query_of_pictures([encoder.encode(picture)]), top=1)[0]
        exact = at_the_very_frame(match, [picture], out, cache.run)
        clip += match.clip_id == of.clip_id
        sampled += _is_within_a_second(match, true_ns)
        looked_up += _is_within_a_second(exact, true_ns)
    return {
        "name": "frames",
        "frames": num_frames,
        "right_clip": clip,
        "right_second_sampled": sampled,
        "right_second": looked_up,
    }


def _cut_frame(
    out: str, run: dict[str, Any], clip: TokenSet, random: np.random.Generator
) -> tuple[NDArray[np.uint8], int]:
    """A frame of a clip, shrunk and through JPEG; and its time."""
    info = read_index(out, clip.video_id, clip.uri)
    time_F = times_ns(info)
    inside = np.flatnonzero((time_F >= clip.start_ns) & (time_F < clip.end_ns))
    number = int(random.choice(inside))
    spec = whole_pictures(run, *SIZES_PX[random.integers(len(SIZES_PX))])
    stream = io.BytesIO()
    frame_HW3 = frames_at(info, [int(info.frame_pts[number])], spec)[0]
    Image.fromarray(frame_HW3).save(stream, "JPEG", quality=QUALITIES[random.integers(len(QUALITIES))])
    return np.array(Image.open(stream)), int(time_F[number])


def _is_within_a_second(match: Match, true_ns: int) -> bool:
    return match.time_ns is not None and abs(match.time_ns - true_ns) <= NS_PER_S
