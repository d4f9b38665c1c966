"""Some clips of a run made again, and compared with what is stored, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np

from pipeline.cache.token_cache import TokenCache
from pipeline.errors import DecodeError, EncodeError
from pipeline.replay import decode_again, encoder_of
from pipeline.shards.run_folder import read_state
from pipeline.store import Where
from pipeline.values import TokenSet
from pipeline.verify import Finding

NOT_STORED = ("encoded_patches", "uri")
"""The address may be another today."""


def compare_again(out: Where, num_clips: int) -> Iterator[Finding]:
    """Extract clips that are spread over the run, and say which differ.

    Raises:
        SettingsError: the run's encoder cannot be had.
    """
    state, cache = read_state(out), TokenCache(out)
    chosen = np.unique(np.linspace(0, len(cache) - 1, min(num_clips, len(cache))).round().astype(int)).tolist()
    encoder = encoder_of(state.run) if chosen else None
    for position in chosen:
        stored = cache.token_set(position)
        video = state.plan.videos.get(stored.video_id)
        if video is None or encoder is None:
            continue
        try:
            made = encoder.encode(decode_again(state, video, stored.clip_index), stored.uri)
        except (DecodeError, EncodeError) as error:
            yield Finding(f"clip {stored.clip_id}: cannot be made again: {error}")
            continue
        different = differing(stored, made)
        if different:
            yield Finding(f"clip {stored.clip_id}: made again it has other {', '.join(different)}")


def differing(one: TokenSet, other: TokenSet) -> list[str]:
    """Fields in which two token sets are not equal, bit for bit."""
    found = []
    for name in (field.name for field in fields(TokenSet) if field.name not in NOT_STORED):
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
            same = mine.dtype == theirs.dtype and mine.shape == theirs.shape and mine.tobytes() == theirs.tobytes()
        elif isinstance(mine, float):
            # Stored as float32.
            same = np.float32(mine) == np.float32(theirs)
        else:
            same = mine == theirs
        if not same:
            found.append(name)
    return found
