"""Tokens of candidates, kept in memory from query to query as far as they fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.cache.cached_clip import CachedClip
from pipeline.cache.token_cache import TokenCache

MOST_HELD_BYTES = 4 << 30
"""Of candidates' tokens in memory, kept from query to query in float16."""


class HeldTokens:
    """The tokens of clips as they are compared.

    Args:
        cache: opened with the cut at which clips are compared.
    """

    def __init__(self, cache: TokenCache) -> None:
        self._cache = cache
        self._held: OrderedDict[int, Tensor] = OrderedDict()
        self._held_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether further clips would take the place of those that are held."""
        return self._held_bytes >= MOST_HELD_BYTES

    def hold(self, position: int, clip: CachedClip) -> None:
        """Keep the tokens of a clip that was read."""
        self._keep(position, _directions(clip))

    def of(self, positions: Sequence[int]) -> list[Tensor]:
        """(M, D) float16 of unit norm each; those that are not held are read.

        Raises:
            RunFolderError: a clip cannot be read.
        """
        missing = [position for position in positions if position not in self._held]
        found = {position: self._held[position] for position in positions if position in self._held}
        for position, clip in zip(missing, self._cache.read(missing, columns=("tokens",)), strict=True):
            found[position] = _directions(clip)
        for position in positions:
            self._keep(position, found[position])
        return [found[position] for position in positions]

    def _keep(self, position: int, tokens_MD: Tensor) -> None:
        """Keep a clip's tokens in memory, and let go of those used longest ago where they are too many."""
        if position not in self._held:
            self._held_bytes += tokens_MD.nbytes
        self._held[position] = tokens_MD
        self._held.move_to_end(position)
        while self._held_bytes > MOST_HELD_BYTES and len(self._held) > 1:
            self._held_bytes -= self._held.popitem(last=False)[1].nbytes


def _directions(clip: CachedClip) -> Tensor:
    return normalize(torch.as_tensor(clip.tokens).float(), dim=1).half()
