"""Strings by number: their letters and sixteen bytes each, where a dictionary of a million takes 200 MB."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BATCH = 10_000


class HashIndex:
    """Positions of keys by their hashes. Whether the key at a position is the one is for the caller to check.

    Args:
        hashes: Of the key at each position.
    """

    def __init__(self, hashes: NDArray[np.int64]) -> None:
        order = np.argsort(hashes, kind="stable")
        self._order = order.astype(np.int32).data
        self._sorted = hashes[order].data

    def positions(self, key: Hashable) -> Iterator[int]:
        """Positions at which the key may be, increasing."""
        wanted = hash(key)
        at = bisect_left(self._sorted, wanted)
        while at < len(self._sorted) and self._sorted[at] == wanted:
            yield self._order[at]
            at += 1

    def last(self, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(keys,) of keys' hashes, the last position at which each may be; -1: there is none."""
        found = np.searchsorted(self._sorted, hashes, side="right") - 1
        is_there = (found >= 0) & (np.asarray(self._sorted)[found] == hashes) if len(self._sorted) else found >= 0
        return np.where(is_there, np.asarray(self._order)[found] if len(self._order) else -1, -1).astype(np.int64)


class Names:
    """Distinct strings, numbered in the order of their first appearance."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        coded = values.dictionary_encode().combine_chunks()
        self.codes: NDArray[np.int32] = coded.indices.to_numpy()
        """(values,) the number of each value."""
        self._names: pa.Array = coded.dictionary
        self._index = HashIndex(hashes_of(self, len(self)))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> str:
        name: str = self._names[number].as_py()
        return name

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), BATCH):
            yield from self._names.slice(first, BATCH).to_pylist()

    def number(self, name: str) -> int | None:
        """The number of a string; None: it is not among them."""
        return next((position for position in self._index.positions(name) if self[position] == name), None)

    def of(self, numbers: Sequence[int] | NDArray[np.int32]) -> list[str]:
        """The strings of several numbers."""
        names: list[str] = self._names.take(pa.array(numbers, pa.int32())).to_pylist()
        return names


def hashes_of(keys: Iterable[Hashable], count: int) -> NDArray[np.int64]:
    """(count,) hashes of keys, valid in this process alone."""
    return np.fromiter(map(hash, keys), np.int64, count)
