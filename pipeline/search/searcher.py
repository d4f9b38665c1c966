"""Search in two stages: pooled vectors choose candidates among all clips, MaxSim over merged tokens ranks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.cache.cut import Cut, coarsened
from pipeline.cache.token_cache import TokenCache
from pipeline.errors import RunFolderError, SettingsError
from pipeline.search.coarse_index import CoarseIndex, open_index
from pipeline.search.coarse_tokens import (
    COARSE_COLUMNS,
    COARSE_TOKENS,
    MOST_COARSE_QUERY,
    coarse_scores,
    coarse_tokens,
    cut_of,
)
from pipeline.search.held_tokens import HeldTokens
from pipeline.search.match import Match
from pipeline.search.maxsim import frame_scores, maxsim_scores
from pipeline.search.query import ClipSpan, Query, directions, query_of_spans
from pipeline.values import TokenSet

Rank = Literal["tokens", "pooled"]
CLIP_KEEP = 0.02
"""Share of a clip's patches that its tokens are cut to for ranking, where it stores a tree."""
CANDIDATES = 200
LIKELY_FRAMES = 8
"""Frames of a match that may be the moment."""
BLOCK_CLIPS = 64
NS_PER_S = 1_000_000_000


class Searcher:
    """The clips of a run, ready to be searched; exact among the candidates."""

    def __init__(
        self,
        cache: TokenCache,
        *,
        keep: float = CLIP_KEEP,
        candidates: int = CANDIDATES,
        index: Path | None = None,
    ) -> None:
        """Read the pooled vectors of all clips; tokens are read when they are candidates, or by `load`.

        Args:
            cache: Opened without a cut.
            keep: Share of its patches to which a clip's tokens are cut, where it stores more and a tree.
            candidates: Clips whose tokens are compared; 0: all.
            index: File of an approximate index that chooses the candidates, made where it is missing or the run has
                grown; no vectors of all clips are then in memory. None: all clips are compared.

        Raises:
            RunFolderError: the run holds no clip, or cannot be read.
            SettingsError: a number is out of range, or the index cannot be had.
        """
        if not len(cache):
            raise RunFolderError(f"{cache.path} holds no clips yet: extract videos into it first")
        if candidates < 0:
            raise SettingsError(f"--candidates {candidates} must be 0 (all clips) or more")
        self.cache = cache
        self._cut = cut_of(cache, Cut(keep=keep))
        self._compared = copy(cache)
        self._compared.cut = self._cut
        self._candidates = candidates or len(cache)
        self._index = None if index is None else self._open_index(index)
        pooled = cache.vectors("pooled") if index is None else np.zeros((0, 0), np.float32)
        assert pooled is not None, "every clip has it"
        self._pooled_CD = torch.from_numpy(pooled)
        self._coarse_CKD: Tensor | None = None
        """(clips, COARSE_TOKENS, D) float16 of unit norm, of a loaded searcher over a run of trees."""
        self._held = HeldTokens(self._compared)

    def load(self) -> None:
        """Read all clips once: no query waits for tokens, as far as `MOST_HELD_BYTES` go, and candidates are better.

        Of a run of trees a few coarse tokens of each clip are kept, and choose the candidates for queries by pictures.

        Raises:
            RunFolderError: a clip cannot be read.
        """
        coarse = []
        for position, clip in enumerate(self._compared.read(range(len(self.cache)), COARSE_COLUMNS)):
            if not self._held.is_full:
                self._held.hold(position, clip)
            if self._cut is not None:
                coarse.append(coarse_tokens(clip))
        self._coarse_CKD = torch.stack(coarse) if coarse else None

    def search(self, query: Query, top: int = 10, rank: Rank = "tokens") -> list[Match]:
        """The clips most like a query, best first.

        Args:
            query: What is looked for.
            top: Most matches.
            rank: By `tokens`, or by `pooled` vectors alone.

        Raises:
            RunFolderError: a clip cannot be read.
        """
        if self._index is not None:
            return self._search_index(self._index, query, top, rank)
        cosine_C = self._pooled_CD @ query.pooled_D
        if rank == "tokens" and self._coarse_CKD is not None and len(query.tokens_QD) <= MOST_COARSE_QUERY:
            cosine_C = coarse_scores(query, self._coarse_CKD)
        cosine_C[list(query.left_out)] = -torch.inf
        num_clips = len(cosine_C) - len(query.left_out)
        if rank == "pooled":
            scores, positions = cosine_C.topk(min(top, num_clips))
        else:
            # In order of position, so that each row group of a shard is read once.
            candidates = cosine_C.topk(min(self._candidates, num_clips)).indices
            scores, positions = self._ranked(query, candidates, top)
        pairs = zip(positions.tolist(), scores.tolist(), strict=True)
        return [self._match(position, score, query) for position, score in pairs]

    def _ranked(self, query: Query, candidates_C: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """Scores and positions of the best of some clips."""
        candidates_C = candidates_C.sort().values
        scores, best = self._maxsim(query, candidates_C.tolist()).sort(descending=True, stable=True)
        return scores[:top], candidates_C[best[:top]]

    def _search_index(self, index: CoarseIndex, query: Query, top: int, rank: Rank) -> list[Match]:
        """As `search`, by the index."""
        tokens_QD, weights_Q = query.tokens_QD, query.weights_Q
        if rank == "pooled" or self._tokens_per_clip == 1 or len(tokens_QD) > MOST_COARSE_QUERY:
            tokens_QD, weights_Q = query.pooled_D[None], torch.ones(1)
        wanted = (top if rank == "pooled" else self._candidates) + len(query.left_out)
        found, scores = index.candidates(tokens_QD.float().numpy(), weights_Q.float().numpy(), wanted)
        is_wanted = ~np.isin(found, list(query.left_out))
        positions_C, scores_C = torch.from_numpy(found[is_wanted]), torch.from_numpy(scores[is_wanted])
        if rank == "tokens" and len(positions_C):
            scores_C, positions_C = self._ranked(query, positions_C, top)
        pairs = zip(positions_C[:top].tolist(), scores_C[:top].tolist(), strict=True)
        return [self._match(position, score, query) for position, score in pairs]

    @property
    def _tokens_per_clip(self) -> int:
        """Coarse tokens of a clip: its pooled vector alone where there is no tree to cut."""
        return 1 if self._cut is None else COARSE_TOKENS

    def _open_index(self, path: Path) -> CoarseIndex:
        return open_index(path, self.cache, self._tokens_per_clip, self._coarse_of)

    def _coarse_of(self, positions: range) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        """(K, D) float32 of unit norm of each clip."""
        columns = ("pooled",) if self._cut is None else COARSE_COLUMNS
        for clip in self._compared.read(positions, columns):
            coarse_KD = torch.as_tensor(clip.pooled)[None] if self._cut is None else coarse_tokens(clip)
            yield normalize(coarse_KD.float(), dim=1).numpy()

    def search_embedding(self, embedding_E: Tensor, top: int = 10) -> list[Match]:
        """The clips whose image embedding is most like a vector of the same space, such as a text's.

        Raises:
            RunFolderError: the run stores no embedding, or one of another width.
        """
        vectors_CE = self.cache.vectors("embedding")
        if vectors_CE is None:
            raise RunFolderError(
                f"{self.cache.path} stores no image embedding to compare with: extract with --embedding always"
            )
        if vectors_CE.shape[1] != len(embedding_E):
            raise RunFolderError(
                f"{self.cache.path} stores embeddings of {vectors_CE.shape[1]} channels, the query has "
                f"{len(embedding_E)}: they are of two encoders"
            )
        cosine_C = torch.from_numpy(vectors_CE) @ normalize(embedding_E.float(), dim=0)
        scores, positions = cosine_C.topk(min(top, len(cosine_C)))
        pairs = zip(positions.tolist(), scores.tolist(), strict=True)
        return [self._match(position, score, None) for position, score in pairs]

    def query_of_clips(self, clip_ids: Sequence[str]) -> Query:
        """Whole clips of the run as examples.

        Raises:
            SettingsError: there is no such clip.
        """
        positions = [self._position(clip_id) for clip_id in clip_ids]
        return query_of_spans([self._span(position) for position in positions], frozenset(positions))

    def query_of_span(self, video_id: str, start_ns: int, end_ns: int) -> Query:
        """What a video shows from one time to another.

        Raises:
            SettingsError: there is no such video, or it has no sampled frame in this time.
        """
        positions = self.cache.video_positions.get(video_id)
        if positions is None:
            raise SettingsError(
                f"--video {video_id} is no video of {self.cache.path} with clips: `vtm inspect` lists them"
            )
        spans = {position: self._span(position, start_ns, end_ns) for position in positions}
        shown = {position: span for position, span in spans.items() if span.last > span.first}
        if not shown:
            last_ns = max(int(self._times(self.cache.token_set(position))[-1]) for position in positions)
            raise SettingsError(
                f"--start {start_ns / NS_PER_S:g}"
                + (f" to --end {end_ns / NS_PER_S:g}" if end_ns <= last_ns else "")
                + f": video {video_id} has no sampled frame in this time; its last one is at {last_ns / NS_PER_S:g} s"
            )
        return query_of_spans(list(shown.values()), frozenset(shown))

    def _position(self, clip_id: str) -> int:
        try:
            return self.cache.position(clip_id)
        except KeyError as error:
            raise SettingsError(f"--clip {error.args[0]}") from error

    def _span(self, position: int, start_ns: int | None = None, end_ns: int | None = None) -> ClipSpan:
        clip = self.cache.token_set(position)
        times_T = self._times(clip)
        first = 0 if start_ns is None else int(np.searchsorted(times_T, start_ns))
        last = len(times_T) if end_ns is None else int(np.searchsorted(times_T, end_ns))
        return ClipSpan(clip, self._coarse(clip), first, last)

    def _times(self, clip: TokenSet) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(T,) nanoseconds: of the first frame of each step of the grid."""
        return clip.frame_time_ns[:: self.cache.tubelet_frames]

    def _coarse(self, clip: TokenSet) -> TokenSet:
        return clip if self._cut is None else coarsened(clip, self._cut)

    def _maxsim(self, query: Query, positions: Sequence[int]) -> Tensor:
        """(C,) scores."""
        blocks = [positions[start : start + BLOCK_CLIPS] for start in range(0, len(positions), BLOCK_CLIPS)]
        scores = [maxsim_scores(query.tokens_QD, query.weights_Q, self._held.of(block)) for block in blocks]
        return torch.cat(scores)

    def _match(self, position: int, score: float, query: Query | None) -> Match:
        clip = self.cache.token_set(position)
        likely_ns: tuple[int, ...] = ()
        if query is not None:
            group_TP = torch.from_numpy(clip.group.astype(np.int64).reshape(clip.grid_thw[0], -1))
            scores_T = frame_scores(query.frames_FPD, directions(clip), group_TP)
            likely = scores_T.argsort(descending=True, stable=True)[:LIKELY_FRAMES]
            likely_ns = tuple(int(time_ns) for time_ns in self._times(clip)[likely.numpy()])
        return Match(
            position=position,
            uri=clip.uri,
            video_id=clip.video_id,
            clip_id=clip.clip_id,
            start_ns=clip.start_ns,
            end_ns=clip.end_ns,
            score=score,
            time_ns=likely_ns[0] if likely_ns else None,
            likely_ns=likely_ns,
        )
