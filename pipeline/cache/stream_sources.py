"""The caches of a stream: opened, compared, and cut into samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.cut import AMOUNTS
from pipeline.cache.token_cache import TokenCache
from pipeline.errors import SettingsError
from pipeline.store import Where


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamSource:
    """The samples of one cache."""

    spans: Sequence[range]
    """Positions of the clips of each sample: of one clip, or of a video's."""
    blocks: NDArray[np.int64]
    """(len(spans),) the shard in which each begins."""


def open_caches(
    caches: TokenCache | Where | Sequence[TokenCache | Where], budget: Mapping[str, float]
) -> list[TokenCache]:
    """The caches, those given by their folder opened at a budget.

    Raises:
        RunFolderError: there is no run.
        SettingsError: there is no cache, or a budget for one that is open.
    """
    several: list[TokenCache | Where] = list(caches) if isinstance(caches, list | tuple) else [caches]  # type: ignore[list-item]
    if not several:
        raise SettingsError("a stream needs a cache: give a folder, an address, or a TokenCache")
    if budget and any(isinstance(cache, TokenCache) for cache in several):
        name = next(iter(budget))
        raise SettingsError(f"{name} is the budget of a cache that is opened here: give it to TokenCache({name}=...)")
    return [cache if isinstance(cache, TokenCache) else TokenCache(cache, **_exact(budget)) for cache in several]


def _exact(budget: Mapping[str, float]) -> dict[str, Any]:
    known = (*AMOUNTS, "lloyd_steps")
    for name in budget:
        if name not in known:
            raise SettingsError(f"{name} is no argument of a stream; budgets are {', '.join(known)}")
    return dict(budget)


def check_alike(caches: Sequence[TokenCache], *, allow_different: bool) -> None:
    """Refuse to mix tokens of different settings.

    Raises:
        SettingsError: they differ, and that was not allowed.
    """
    first = caches[0]
    for cache in caches[1:]:
        if cache.run["fingerprint"] != first.run["fingerprint"] and not allow_different:
            held, other = first.run["fingerprinted"], cache.run["fingerprinted"]
            names = sorted(name for name in held.keys() | other.keys() if held.get(name) != other.get(name))
            text = ", ".join(f"{name} {held.get(name)} and {other.get(name)}" for name in names)
            raise SettingsError(
                f"{first.path} and {cache.path} have different fingerprints ({text or 'of other versions'}): "
                "their tokens are not alike; allow_different=True mixes them all the same"
            )


def source_of(cache: TokenCache, *, join_videos: bool) -> StreamSource:
    """The samples of a cache: its clips, or its videos."""
    shards = cache.shard_numbers
    if not join_videos:
        return StreamSource(spans=_Singles(len(cache)), blocks=shards)
    spans = [view.positions for view in cache.videos.values()]
    return StreamSource(spans=spans, blocks=shards[[span.start for span in spans]] if spans else shards)


class _Singles(Sequence[range]):
    """Each clip a sample, without an object for each."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> Any:
        return range(int(key), int(key) + 1)
