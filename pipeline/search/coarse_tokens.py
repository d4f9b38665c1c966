"""A few tokens of each clip, by which candidates are chosen among all clips of a run."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.cache.cached_clip import CachedClip
from pipeline.cache.cut import Cut, cut_map
from pipeline.cache.token_cache import TokenCache
from pipeline.search.maxsim import maxsim_scores
from pipeline.search.query import LEAST_TOKENS, Query
from pipeline.shards.run_folder import picture_of

COARSE_TOKENS = 32
"""Of each clip: by them a loaded searcher chooses candidates. A pooled vector says little of one moment in a minute."""
COARSE_COLUMNS = ("tokens", "sizes", "weights", "parent", "loss")
"""Columns that they are made of."""
MOST_COARSE_QUERY = 64
"""Tokens of a query that is compared with all clips' coarse tokens; longer ones are compared by pooled vectors."""
COARSE_BLOCK_CLIPS = 512


def cut_of(cache: TokenCache, share: Cut) -> Cut | None:
    """How many tokens of each clip are compared: the share of a whole clip; None where there is no tree to cut."""
    settings = cache.run["settings"]
    if settings.get("strategy") != "tree":
        return None
    steps = -(-settings["clip_frames"] // cache.tubelet_frames)
    num_sources = steps * math.prod(picture_of(cache.run).grid_hw)
    assert share.keep is not None, "it is a share"
    return Cut(tokens=max(LEAST_TOKENS, math.ceil(share.keep * num_sources)))


def coarse_tokens(clip: CachedClip) -> Tensor:
    """(COARSE_TOKENS, D) float16 of unit norm: the clip's tree cut far down; of a clip of fewer, one comes again."""
    tokens_MD = torch.as_tensor(clip.tokens).float()
    mass_M = torch.as_tensor(clip.sizes if clip.weights is None else clip.weights).float()
    left = min(COARSE_TOKENS, len(tokens_MD))
    _, into_M = cut_map(np.asarray(clip.parent), np.asarray(clip.loss), left)
    sums_KD = torch.zeros(left, tokens_MD.shape[1]).index_add_(0, torch.from_numpy(into_M), tokens_MD * mass_M[:, None])
    coarse_KD = normalize(sums_KD, dim=1).half()
    return torch.cat((coarse_KD, coarse_KD[:1].expand(COARSE_TOKENS - left, -1)))


def coarse_scores(query: Query, coarse_CKD: Tensor) -> Tensor:
    """(C,) MaxSim over the coarse tokens of all clips."""
    blocks = [
        maxsim_scores(query.tokens_QD, query.weights_Q, list(block_CKD))
        for block_CKD in torch.split(coarse_CKD, COARSE_BLOCK_CLIPS)
    ]
    return torch.cat(blocks)
