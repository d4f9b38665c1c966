"""Some clips of a cache as a sequence, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

from pipeline.cache.cached_clip import CachedClip
from pipeline.counted import counted

if TYPE_CHECKING:
    from pipeline.cache.token_cache import TokenCache


class ClipView(Sequence[CachedClip]):
    """Some clips of a cache in order, such as those of a video; they are read when they are asked for."""

    def __init__(self, cache: TokenCache, positions: range) -> None:
        self._cache, self.positions = cache, positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, key: int) -> CachedClip: ...
    @overload
    def __getitem__(self, key: slice) -> ClipView: ...
    def __getitem__(self, key: int | slice) -> CachedClip | ClipView:
        """A clip by its place in the view, or a smaller view."""
        if isinstance(key, slice):
            return ClipView(self._cache, self.positions[key])
        return self._cache[self.positions[key]]

    def __iter__(self) -> Iterator[CachedClip]:
        return self._cache.read(self.positions)

    def __contains__(self, key: object) -> bool:
        """Whether there is a clip of this id (or, for what `__getitem__` gives, of its id)."""
        clip_id = clip_id_of(key)
        return clip_id is not None and key in self._cache and self._cache.position(clip_id) in self.positions

    def __repr__(self) -> str:
        return f"ClipView({counted(len(self), 'clip')} of {str(self._cache.path)!r})"


def clip_id_of(key: object) -> str | None:
    """The id that a clip or an id names; None for anything else."""
    if isinstance(key, CachedClip):
        return key.clip_id
    return key if isinstance(key, str) else None
