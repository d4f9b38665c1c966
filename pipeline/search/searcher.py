"""Search in two stages: pooled vectors choose candidates among all clips, MaxSim over merged tokens ranks them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.cache.cached_clip import CachedClip
from pipeline.cache.cut import Cut, coarsened, cut_map
from pipeline.cache.token_cache import TokenCache
from pipeline.errors import RunFolderError, SettingsError
from pipeline.search.maxsim import frame_scores, maxsim_scores
from pipeline.search.query import LEAST_TOKENS, ClipSpan, Query, directions, query_of_spans
from pipeline.shards.run_folder import picture_of
from pipeline.values import TokenSet

Rank = Literal["tokens", "pooled"]
CLIP_KEEP = 0.02
"""Share of a clip's patches that its tokens are cut to for ranking, where it stores a tree."""
CANDIDATES = 200
MOST_HELD_BYTES = 4 << 30
"""Of candidates' tokens in memory, kept from query to query in float16."""
LIKELY_FRAMES = 8
"""Frames of a match that may be the moment."""
COARSE_TOKENS = 32
"""Of each clip: by them a loaded searcher chooses candidates. A pooled vector says little of one moment in a minute."""
MOST_COARSE_QUERY = 64
"""Tokens of a query that is compared with all clips' coarse tokens; longer ones are compared by pooled vectors."""
BLOCK_CLIPS = 64
COARSE_BLOCK_CLIPS = 512
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A clip that was found."""

    position: int
    """In the cache."""
    uri: str
    video_id: str
    clip_id: str
    start_ns: int
    end_ns: int
    score: float
    """Size-weighted MaxSim, or the cosine of pooled vectors or embeddings: at most 1."""
    time_ns: int | None = None
    """Of the frame that is most like the query; None where only whole clips were compared."""
    likely_ns: tuple[int, ...] = ()
    """Times of the frames that are most like it, best first."""

    def to_json(self) -> dict[str, Any]:
        """As `vtm search --json` prints it, times in seconds."""
        return {
            "uri": self.uri,
            "video_id": self.video_id,
            "clip_id": self.clip_id,
            "start_s": self.start_ns / NS_PER_S,
            "end_s": self.end_ns / NS_PER_S,
            "time_s": None if self.time_ns is None else self.time_ns / NS_PER_S,
            "score": round(self.score, 6),
        }


class Searcher:
    """The clips of a run, ready to be searched; exact among the candidates."""

    def __init__(self, cache: TokenCache, *, keep: float = CLIP_KEEP, candidates: int = CANDIDATES) -> None:
        """Read the pooled vectors of all clips; tokens are read when they are candidates, or by `load`.

        Args:
            cache: Opened without a cut.
            keep: Share of its patches to which a clip's tokens are cut, where it stores more and a tree.
            candidates: Clips whose tokens are compared; 0: all.

        Raises:
            RunFolderError: the run holds no clip, or cannot be read.
            SettingsError: a number is out of range.
        """
        if not len(cache):
            raise RunFolderError(f"{cache.path} holds no clips yet: extract videos into it first")
        if candidates < 0:
            raise SettingsError(f"--candidates {candidates} must be 0 (all clips) or more")
        self.cache = cache
        self._cut = _cut_of(cache, Cut(keep=keep))
        self._compared = copy(cache)
        self._compared.cut = self._cut
        self._candidates = candidates or len(cache)
        pooled = cache.vectors("pooled")
        assert pooled is not None, "every clip has it"
        self._pooled_CD = torch.from_numpy(pooled)
        self._coarse_CKD: Tensor | None = None
        """(clips, COARSE_TOKENS, D) float16 of unit norm, of a loaded searcher over a run of trees."""
        self._held: OrderedDict[int, Tensor] = OrderedDict()
        self._held_bytes = 0

    def load(self) -> None:
        """Read all clips once: no query waits for tokens, as far as MOST_HELD_BYTES go, and candidates are better.

        Of a run of trees a few coarse tokens of each clip are kept, and choose the candidates for queries by pictures.

        Raises:
            RunFolderError: a clip cannot be read.
        """
        coarse = []
        columns = ("tokens", "sizes", "weights", "parent", "loss")
        for position, clip in enumerate(self._compared.read(range(len(self.cache)), columns)):
            if self._held_bytes < MOST_HELD_BYTES:
                self._hold(position, normalize(torch.as_tensor(clip.tokens).float(), dim=1).half())
            if self._cut is not None:
                coarse.append(_coarse_tokens(clip))
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
        cosine_C = self._pooled_CD @ query.pooled_D
        if rank == "tokens" and self._coarse_CKD is not None and len(query.tokens_QD) <= MOST_COARSE_QUERY:
            cosine_C = _coarse_scores(query, self._coarse_CKD)
        cosine_C[list(query.left_out)] = -torch.inf
        num_clips = len(cosine_C) - len(query.left_out)
        if rank == "pooled":
            scores, positions = cosine_C.topk(min(top, num_clips))
        else:
            # In order of position, so that each row group of a shard is read once.
            candidates = cosine_C.topk(min(self._candidates, num_clips)).indices.sort().values
            scores_C = self._maxsim(query, candidates.tolist())
            scores, best = scores_C.sort(descending=True, stable=True)
            scores, positions = scores[:top], candidates[best[:top]]
        pairs = zip(positions.tolist(), scores.tolist(), strict=True)
        return [self._match(position, score, query) for position, score in pairs]

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
            raise SettingsError(
                f"--start {start_ns / NS_PER_S:g} to --end {end_ns / NS_PER_S:g}: video {video_id} has no frame in "
                "this time: `vtm inspect` says how long it is"
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
        scores = [maxsim_scores(query.tokens_QD, query.weights_Q, self._tokens(block)) for block in blocks]
        return torch.cat(scores)

    def _tokens(self, positions: Sequence[int]) -> list[Tensor]:
        """(M, D) float16 of unit norm each: candidates' tokens, as they are compared."""
        missing = [position for position in positions if position not in self._held]
        found = {position: self._held[position] for position in positions if position in self._held}
        for position, clip in zip(missing, self._compared.read(missing, columns=("tokens",)), strict=True):
            found[position] = normalize(torch.as_tensor(clip.tokens).float(), dim=1).half()
        for position in positions:
            self._hold(position, found[position])
        return [found[position] for position in positions]

    def _hold(self, position: int, tokens_MD: Tensor) -> None:
        """Keep a clip's tokens in memory, and let go of those used longest ago where they are too many."""
        if position not in self._held:
            self._held_bytes += tokens_MD.nbytes
        self._held[position] = tokens_MD
        self._held.move_to_end(position)
        while self._held_bytes > MOST_HELD_BYTES and len(self._held) > 1:
            self._held_bytes -= self._held.popitem(last=False)[1].nbytes

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


def _cut_of(cache: TokenCache, share: Cut) -> Cut | None:
    """How many tokens of each clip are compared: the share of a whole clip; None where there is no tree to cut."""
    settings = cache.run["settings"]
    if settings.get("strategy") != "tree":
        return None
    steps = -(-settings["clip_frames"] // cache.tubelet_frames)
    num_sources = steps * math.prod(picture_of(cache.run).grid_hw)
    assert share.keep is not None, "it is a share"
    return Cut(tokens=max(LEAST_TOKENS, math.ceil(share.keep * num_sources)))


def _coarse_tokens(clip: CachedClip) -> Tensor:
    """(COARSE_TOKENS, D) float16 of unit norm: the clip's tree cut far down; of a clip of fewer, one comes again."""
    tokens_MD = torch.as_tensor(clip.tokens).float()
    mass_M = torch.as_tensor(clip.sizes if clip.weights is None else clip.weights).float()
    left = min(COARSE_TOKENS, len(tokens_MD))
    _, into_M = cut_map(np.asarray(clip.parent), np.asarray(clip.loss), left)
    sums_KD = torch.zeros(left, tokens_MD.shape[1]).index_add_(0, torch.from_numpy(into_M), tokens_MD * mass_M[:, None])
    coarse_KD = normalize(sums_KD, dim=1).half()
    return torch.cat((coarse_KD, coarse_KD[:1].expand(COARSE_TOKENS - left, -1)))


def _coarse_scores(query: Query, coarse_CKD: Tensor) -> Tensor:
    """(C,) MaxSim over the coarse tokens of all clips."""
    blocks = [
        maxsim_scores(query.tokens_QD, query.weights_Q, list(block_CKD))
        for block_CKD in torch.split(coarse_CKD, COARSE_BLOCK_CLIPS)
    ]
    return torch.cat(blocks)
