"""Files of shards whose record of commit is lost: recorded again where they are sound, instead of made again.

Where the videos are gone by now, these files are all that is left of them.
"""

from __future__ import annotations

import hashlib
import io
import time
from typing import Any

from pipeline.shards.commit_record import ShardFile, ShardManifest
from pipeline.shards.commits import commit
from pipeline.shards.manifest import PLACES, damaged_of, file_name, units_of
from pipeline.shards.scan import fingerprint_of, read_clips
from pipeline.store import Store
from pipeline.values import TokenSet
from pipeline.verify import clip_problems


def adopt(store: Store, shard_id: str, run: dict[str, Any]) -> bool:
    """Record a shard by what its files hold; whether that could be done.

    Raises:
        OSError: the store cannot be read or written.
    """
    files: list[ShardFile] = []
    clips: list[TokenSet] = []
    for form in PLACES:
        name = file_name(shard_id, form)
        if store.entry(name) is None:
            continue
        data = store.get(name)
        found = _sound_clips(name, data, run)
        if found and (not clips or units_of(found) == units_of(clips)):
            files.append(ShardFile(name=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
            clips = found
    if not clips:
        return False
    manifest = ShardManifest(
        shard_id=shard_id,
        fingerprint=run["fingerprint"],
        num_clips=len(clips),
        files=tuple(files),
        failures=(),
        damaged_frames=damaged_of(clips),
        clips=units_of(clips),
        committed_s=time.time(),
    )
    commit(store, manifest)
    return True


def _sound_clips(name: str, data: bytes, run: dict[str, Any]) -> list[TokenSet]:
    """The clips of a file of this run; none where any of them is unsound."""
    tubelet_frames = run["encoder"].get("tubelet_frames", 1)
    try:
        if fingerprint_of(io.BytesIO(data), name) != run["fingerprint"]:
            return []
        clips = list(read_clips(io.BytesIO(data), name))
    except (OSError, ValueError, KeyError):
        return []
    return [] if any(clip_problems(clip, tubelet_frames) for clip in clips) else clips
