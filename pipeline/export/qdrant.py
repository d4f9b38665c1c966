"""Qdrant: a collection with a point a clip: `tokens`, a multivector compared by MaxSim, and `pooled`.

The reader is qdrant-client: `client.query_points(name, query=tokens, using="tokens")`. Its server takes fewer than
1,048,576 numbers in a point's multivector (qdrant/qdrant lib/common/common/src/validation.rs), which is looked at for
every clip before one is written. Without `--url` the collection is a local folder. Needs the extra `qdrant`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.cache.cached_clip import CachedClip
from pipeline.cache.token_cache import TokenCache
from pipeline.counted import counted
from pipeline.errors import SettingsError
from pipeline.export.lance import COLUMNS, in_batches
from pipeline.export.target import Exported, ExportOptions

TAKES = ("collection", "url")
MOST_NUMBERS = 1 << 20
NAMESPACE = uuid.UUID("7d444840-9dc0-11d1-b245-5ffdce74fad2")


def export(cache: TokenCache, folder: Path, options: ExportOptions) -> Exported:
    """Write a collection of a server, or in the folder.

    Raises:
        SettingsError: a clip is too large, qdrant-client is not installed, or the collection is there.
    """
    check_sizes(cache)
    try:
        import qdrant_client
    except ImportError as error:
        raise SettingsError(f"qdrant needs qdrant-client ({error}): pip install 'vtm-pipeline[qdrant]'") from error
    where: dict[str, Any] = {"path": str(folder)} if options.url is None else {"url": options.url}
    client = qdrant_client.QdrantClient(**where)
    try:
        return upload(cache, client, options.collection)
    finally:
        client.close()


def check_sizes(cache: TokenCache) -> None:
    """Look at every clip's number of tokens, before one is read (as stored: where a budget is given, while writing).

    Raises:
        SettingsError: a clip has too many.
    """
    dim = int(cache.run["encoder"]["dim"])
    most = (MOST_NUMBERS - 1) // dim
    if cache.cut is not None and cache.cut.tokens is not None and cache.cut.tokens <= most:
        return
    for clip in cache.facts():
        left = clip.num_tokens
        if cache.cut is not None:
            left = len(cache[clip.clip_id].tokens) if clip.num_tokens > most else left
        if left > most:
            raise SettingsError(
                f"clip {clip.clip_id} has {counted(left, 'token')} of {dim} channels, and Qdrant takes fewer than "
                f"{MOST_NUMBERS:,} numbers a point: export with --tokens-per-clip {most} or fewer"
            )


def upload(cache: TokenCache, client: Any, collection: str) -> Exported:
    """Make the collection and fill it, batch by batch.

    Raises:
        SettingsError: it is there already.
    """
    from qdrant_client import models

    if client.collection_exists(collection):
        raise SettingsError(f"collection {collection} is there already: name another with --collection")
    dim = int(cache.run["encoder"]["dim"])
    max_sim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    cosine = models.Distance.COSINE
    client.create_collection(
        collection,
        vectors_config={
            "tokens": models.VectorParams(
                size=dim, distance=cosine, multivector_config=max_sim, hnsw_config=models.HnswConfigDiff(m=0)
            ),
            "pooled": models.VectorParams(size=dim, distance=cosine),
        },
    )
    rows = 0
    for clips in in_batches(cache, COLUMNS):
        client.upload_points(collection, list(_points(clips, models)), wait=True)
        rows += sum(len(clip.tokens) for clip in clips)
    notes = ("ask by `pooled` first and let `tokens` rank what it finds: query_points(prefetch=..., using='tokens')",)
    return Exported(format="qdrant", items=len(cache), rows=rows, notes=notes)


def _points(clips: list[CachedClip], models: Any) -> Iterator[Any]:
    for clip in clips:
        yield models.PointStruct(
            id=str(uuid.uuid5(NAMESPACE, clip.clip_id)),
            vector={"tokens": clip.tokens.astype("float32").tolist(), "pooled": clip.pooled.tolist()},
            payload={
                "clip_id": clip.clip_id,
                "video_id": clip.video_id,
                "uri": clip.uri,
                "start_s": clip.start_ns / 1e9,
                "end_s": clip.end_ns / 1e9,
                "sizes": clip.sizes.tolist(),
            },
        )
