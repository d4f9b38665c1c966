"""An approximate index of a run's coarse tokens: it chooses candidates among more clips than memory holds tokens of.

An inverted file with 8-bit numbers (FAISS, `IVF…,SQ8`): vectors are sorted into lists around centroids, and a query is
compared with the lists whose centroids are nearest. Needs the extra `faiss`.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.token_cache import TokenCache
from pipeline.errors import SettingsError, StoreError

LIST_VECTORS = 256
"""Vectors of a list, on average."""
TRAINING_VECTORS = 64
"""For each centroid, of clips spread over the run."""
PROBED_SHARE = 0.05
LEAST_PROBED = 8
"""Lists that a query token is compared with: this share of them, and so many at least."""
NEIGHBOURS = 8
"""Vectors found for each query token: so many for each clip that is wanted."""
BATCH_CLIPS = 256


class CoarseIndex:
    """The coarse tokens of each clip of a run, K of them.

    Args:
        index: Of FAISS.
        tokens_per_clip: K.
    """

    def __init__(self, index: Any, tokens_per_clip: int) -> None:
        self._index, self._tokens_per_clip = index, tokens_per_clip
        index.nprobe = min(index.nlist, max(LEAST_PROBED, math.ceil(PROBED_SHARE * index.nlist)))

    def candidates(
        self, tokens_QD: NDArray[np.float32], weights_Q: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The clips whose coarse tokens are most like a query, best first.

        Args:
            tokens_QD: (Q, D) of unit norm.
            weights_Q: (Q,) shares of the query, summing to 1.
            count: Most clips.

        Returns:
            Positions (C,), and (C,) approximate MaxSim: a query token that found none of a clip's tokens counts as it
            does for the least similar token that it did find.
        """
        wanted = min(self._index.ntotal, max(64, NEIGHBOURS * count))
        cosine_QN, row_QN = self._index.search(np.ascontiguousarray(tokens_QD, np.float32), wanted)
        gains: dict[int, float] = {}
        floor = 0.0
        for cosine_N, row_N, weight in zip(cosine_QN, row_QN, weights_Q.tolist(), strict=True):
            is_found = row_N >= 0
            if not is_found.any():
                continue
            least = float(cosine_N[is_found][-1])
            floor += weight * least
            # Best first: the first of a clip's tokens is the nearest.
            clips, first = np.unique(row_N[is_found] // self._tokens_per_clip, return_index=True)
            for clip, gain in zip(clips.tolist(), (weight * (cosine_N[is_found][first] - least)).tolist(), strict=True):
                gains[clip] = gains.get(clip, 0.0) + gain
        best = sorted(gains, key=lambda clip: (-gains[clip], clip))[:count]
        return np.array(best, np.int64), np.array([floor + gains[clip] for clip in best], np.float32)


def open_index(
    path: Path, cache: TokenCache, tokens_per_clip: int, read: Callable[[range], Iterator[NDArray[np.float32]]]
) -> CoarseIndex:
    """The index of a run in a file; made where the file is missing, damaged, or of an earlier state of the run.

    Args:
        path: The file.
        cache: The run.
        tokens_per_clip: K.
        read: Reads (K, D) of unit norm of each of a range of clips.

    Raises:
        SettingsError: FAISS is not installed, or the file is no index of this run.
        StoreError: it cannot be written.
    """
    faiss = _library()
    state = _state_of(cache, tokens_per_clip)
    about = path.with_name(path.name + ".json")
    # FAISS takes what it reads for granted: nothing damaged comes to it.
    if path.exists() and _stored(path, about, state) == {**state, "sha256": _sha256(path)}:
        return CoarseIndex(faiss.read_index(str(path)), tokens_per_clip)
    with _written(path) as temporary:
        index = _made(faiss, len(cache), tokens_per_clip, read)
        _write(faiss, index, temporary)
        # First what it will be: whenever this is stopped, what is there is known, and made again where it is another.
        with _written(about) as described:
            described.write_text(json.dumps({**state, "sha256": _sha256(temporary)}))
    return CoarseIndex(index, tokens_per_clip)


def _library() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise SettingsError(f"--index needs FAISS ({error}): pip install 'vtm-pipeline[faiss]'") from error
    return faiss


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _state_of(cache: TokenCache, tokens_per_clip: int) -> dict[str, Any]:
    clips = hashlib.sha256("\n".join(cache.clip_ids).encode()).hexdigest()
    return {"fingerprint": cache.run["fingerprint"], "clips": clips, "tokens_per_clip": tokens_per_clip}


def _stored(path: Path, about: Path, state: dict[str, Any]) -> Any:
    """What a file says that it is the index of.

    Raises:
        SettingsError: it says nothing, or names another run.
    """
    try:
        stored = json.loads(about.read_text())
        fingerprint = stored["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"--index {path} is not known to be an index of a run ({about.name} cannot be read: {error}): "
            "name a new file, or remove this one"
        ) from error
    if fingerprint != state["fingerprint"]:
        raise SettingsError(f"--index {path} is of a run with other settings: name another file")
    return stored


def _made(faiss: Any, clips: int, tokens_per_clip: int, read: Callable[[range], Iterator[NDArray[np.float32]]]) -> Any:
    lists = max(1, clips * tokens_per_clip // LIST_VECTORS)
    step = max(1, clips * tokens_per_clip // (lists * TRAINING_VECTORS))
    sample = np.concatenate(list(read(range(0, clips, step))))
    index = faiss.index_factory(sample.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    # It warns of fewer than 39 for each, which a small run has.
    index.cp.min_points_per_centroid = 1
    index.train(sample)
    rows = read(range(clips))
    while batch := list(islice(rows, BATCH_CLIPS)):
        index.add(np.concatenate(batch))
    return index


def _write(faiss: Any, index: Any, path: Path) -> None:
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # FAISS raises no other where a disk is full.
        raise OSError(str(error)) from error


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A file beside it that takes its place when it is whole. That there can be one is known before it is filled.

    Raises:
        StoreError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.touch()
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"--index: {path} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
