"""Videos to merged token shards: inputs, decode, encode, shards, engines, and reading shards back."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.version import __version__

if TYPE_CHECKING:
    from pipeline.cache.cached_clip import CachedClip
    from pipeline.cache.collate import JoinedClips, PackedBatch, PaddedBatch, collate, joined
    from pipeline.cache.token_cache import TokenCache
    from pipeline.cache.token_stream import TokenStream

__all__ = [
    "CachedClip",
    "JoinedClips",
    "PackedBatch",
    "PaddedBatch",
    "TokenCache",
    "TokenStream",
    "__version__",
    "collate",
    "joined",
]
HOMES = {"CachedClip": "cached_clip", "TokenCache": "token_cache", "TokenStream": "token_stream"}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a decode worker that imports this package wants neither pyarrow nor torch.
    if name in __all__:
        return getattr(importlib.import_module(f"pipeline.cache.{HOMES.get(name, 'collate')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
