"""Videos to merged token shards: inputs, decode, encode, shards, engines, and reading shards back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.version import __version__

if TYPE_CHECKING:
    from pipeline.cache.token_cache import CachedClip, TokenCache

__all__ = ["CachedClip", "TokenCache", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a decode worker that imports this package wants neither pyarrow nor torch.
    if name in __all__:
        from pipeline.cache import token_cache as cache

        return getattr(cache, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
