"""A stored merge tree cut: a clip's token set with fewer tokens, without its source tokens.

Letters: M tokens stored, m tokens left, N source patches, D channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cache.token_values import decoded_tokens, directions_of, masses, stored_tokens
from pipeline.errors import RunFolderError, SettingsError
from pipeline.shards.centers import center_order
from pipeline.values import TokenSet
from vtm.lloyd import lloyd_groups
from vtm.segments import scattered_sum
from vtm.tree import FIDELITY_ROUNDING, cut_fidelities, cut_groups

SHARE_ROUNDING = 1e-9
"""A share of 0.1 is to be read as the decimal: 0.1 · 30 is 3 and not 4."""


AMOUNTS = ("keep", "tokens", "fidelity", "max_loss")
"""What a cut may be said by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How far down a clip's tree is cut; what asks for more than is stored gets what is stored."""

    keep: float | None = None
    """Share of the source patches, rounded up."""
    tokens: int | None = None
    """So many tokens a clip."""
    fidelity: float | None = None
    """As few tokens as have at least this mean cosine."""
    max_loss: float | None = None
    """All merges that cost at most this: one loss for all clips spends tokens where they serve most."""
    lloyd_steps: int = 0
    """How often stored tokens then join the nearest of those left: more fidelity at a small number, but no tree."""

    def __post_init__(self) -> None:
        given = [name for name in AMOUNTS if getattr(self, name) is not None]
        if len(given) != 1:
            raise SettingsError(f"a cut is one of {', '.join(AMOUNTS)}, got {' and '.join(given) or 'none'}")
        if self.lloyd_steps != int(self.lloyd_steps) or self.lloyd_steps < 0:
            raise SettingsError(f"lloyd_steps {self.lloyd_steps} must be a whole number, 0 or more")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise SettingsError(f"keep {self.keep} must be above 0 and at most 1: it is a share of the source patches")
        if self.tokens is not None and (self.tokens != int(self.tokens) or self.tokens < 1):
            raise SettingsError(f"tokens {self.tokens} must be a whole number, 1 or more")
        if self.fidelity is not None and not -1 <= self.fidelity <= 1:
            raise SettingsError(f"fidelity {self.fidelity} must be a mean cosine, at most 1")
        if self.max_loss is not None and not self.max_loss >= 0:
            raise SettingsError(f"max_loss {self.max_loss} must be 0 or more: it is a loss of summed cosine")

    def asked(self) -> dict[str, float]:
        """What was asked for, by name."""
        amounts = {name: getattr(self, name) for name in AMOUNTS if getattr(self, name) is not None}
        return amounts | ({"lloyd_steps": self.lloyd_steps} if self.lloyd_steps else {})

    def count(self, loss_M: NDArray[np.float32], fidelity: float, num_sources: int) -> int:
        """m, from 1 to M, of tokens with these losses, this fidelity and so many source patches."""
        stored = len(loss_M)
        if self.keep is not None:
            return min(stored, max(1, math.ceil(self.keep * num_sources - SHARE_ROUNDING)))
        if self.tokens is not None:
            return min(stored, self.tokens)
        if self.max_loss is not None:
            return int(np.count_nonzero(loss_M > self.max_loss))
        assert self.fidelity is not None, "one of the four is given"
        below = stored_fidelities(loss_M, fidelity, num_sources) < self.fidelity - FIDELITY_ROUNDING
        return min(stored, 1 + int(np.count_nonzero(below)))


def check_cut(path: object, run: dict[str, Any], cut: Cut) -> None:
    """See from a run's settings whether its clips can be cut so.

    Raises:
        RunFolderError: they hold no trees.
        SettingsError: they hold fewer tokens than asked for.
    """
    settings = run["settings"]
    if settings.get("strategy") != "tree":
        raise RunFolderError(
            f"{path} holds no merge trees (--strategy {settings.get('strategy')}), so its clips cannot be cut: "
            "extract with --strategy tree, or read all its tokens"
        )
    stored = run["fingerprinted"].get("keep")
    if cut.keep is not None and stored is not None and cut.keep > stored:
        raise SettingsError(f"keep {cut.keep} is more than the {stored} that {path} stores: ask for that or less")
    stored = settings.get("tokens_per_clip")
    if cut.tokens is not None and stored is not None and cut.tokens > stored:
        raise SettingsError(f"tokens {cut.tokens} are more than the {stored} that {path} stores: ask for that or fewer")


def tree_of(clip: TokenSet) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A clip's `parent` and `loss`.

    Raises:
        SettingsError: it has none.
    """
    if clip.parent is None or clip.loss is None:
        raise SettingsError(f"clip {clip.clip_id} holds no merge tree to cut: extract it with --strategy tree")
    return clip.parent.astype(np.int64), clip.loss


def stored_fidelities(loss_M: NDArray[np.float32], fidelity: float, num_sources: int) -> NDArray[np.float64]:
    """(M,) the mean cosine with m + 1 tokens at position m; `fidelity` is that of all M."""
    # A copy, because the bytes of a file may not be written to and torch has no read-only tensors.
    losses_1M = torch.from_numpy(loss_M.copy())[None]
    whole_1 = torch.tensor([fidelity], dtype=torch.float64)
    weight_1 = torch.tensor([num_sources], dtype=torch.float64)
    found_M: NDArray[np.float64] = cut_fidelities(losses_1M, whole_1, weight_1)[0].numpy()
    return found_M


def coarsened(clip: TokenSet, cut: Cut) -> TokenSet:
    """The clip with as many tokens as a cut leaves: their means, sizes, centres, map and tree, and the fidelity told.

    With Lloyd steps there is no tree.

    Raises:
        SettingsError: the clip holds no tree.
    """
    parent_M, loss_M = tree_of(clip)
    left = cut.count(loss_M, clip.fidelity, len(clip.group))
    if left == len(clip.tokens):
        return replace(clip, parent=None, loss=None) if cut.lloyd_steps else clip
    kept_m, into_M = cut_map(parent_M, loss_M, left)
    told = float(stored_fidelities(loss_M, clip.fidelity, len(clip.group))[left - 1])
    if cut.lloyd_steps:
        into_M, gained = _regrouped(clip, into_M, left, cut.lloyd_steps)
        return replace(_merged(clip, into_M, left)[0], parent=None, loss=None, fidelity=told + gained)
    merged, order_m = _merged(clip, into_M, left)
    parent_m = np.argsort(order_m)[into_M[parent_M[kept_m[order_m]]]]
    return replace(merged, parent=parent_m.astype(clip.group.dtype), loss=loss_M[kept_m[order_m]], fidelity=told)


def _merged(clip: TokenSet, into_M: NDArray[np.int64], left: int) -> tuple[TokenSet, NDArray[np.int64]]:
    """The clip of these groups of its tokens, but for tree and fidelity; and the group of each token, by centre."""
    group_N = into_M[clip.group]
    sizes_m = np.bincount(group_N, minlength=left)
    centers_m3, order_m = center_order(group_N, left, clip.grid_thw)
    place_m = np.argsort(order_m)
    into_M = place_m[into_M]
    tokens, scale = stored_tokens(_means(clip, into_M, left), clip.tokens_dtype)
    merged = replace(
        clip,
        tokens=tokens,
        tokens_scale=scale,
        sizes=sizes_m[order_m].astype(np.int32),
        centers=centers_m3[order_m],
        group=place_m[group_N].astype(clip.group.dtype),
        weights=None if clip.weights is None else np.bincount(into_M, clip.weights, left).astype(np.float32),
    )
    return merged, order_m


def _regrouped(clip: TokenSet, into_M: NDArray[np.int64], left: int, steps: int) -> tuple[NDArray[np.int64], float]:
    """Lloyd steps of the stored tokens. Returns the group of each, and by how much the fidelity rises."""
    sum_MD, before_M = directions_of(clip), torch.from_numpy(into_M)
    after_M = lloyd_groups(sum_MD, before_M, left, steps)
    kept = [float(scattered_sum(sum_MD, group_M, left).norm(dim=1).double().sum()) for group_M in (before_M, after_M)]
    return after_M.numpy(), (kept[1] - kept[0]) / float(masses(clip).sum(dtype=np.float64))


def cut_map(
    parent_M: NDArray[np.int64], loss_M: NDArray[np.float32], left: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The `left` tokens that are kept, increasing, and for each token the position of the one that it ends in."""
    # A copy, because the bytes of a file may not be written to and torch has no read-only tensors.
    kept_1m, into_1M = cut_groups(torch.from_numpy(parent_M)[None], torch.from_numpy(loss_M.copy())[None], left)
    return kept_1m[0].numpy(), into_1M[0].numpy()


def _means(clip: TokenSet, into_M: NDArray[np.int64], left: int) -> Tensor:
    """(m, D) float32, a token counting as its patches do."""
    counts_M = clip.sizes.astype(np.float32) if clip.weights is None else clip.weights
    # By torch, which adds up rows fifty times as fast as numpy's reduceat.
    weighted_MD = decoded_tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale) * counts_M[:, None]
    total_mD = scattered_sum(torch.from_numpy(weighted_MD), torch.from_numpy(into_M), left)
    return total_mD / torch.from_numpy(np.bincount(into_M, counts_M, left).astype(np.float32))[:, None]


def cut_asked_for(
    *,
    keep: float | None = None,
    tokens: int | None = None,
    fidelity: float | None = None,
    max_loss: float | None = None,
    lloyd_steps: int = 0,
) -> Cut | None:
    """The cut of these arguments; None where all are left out.

    Raises:
        SettingsError: one is out of range, there are two amounts, or Lloyd steps without one.
    """
    if all(value is None for value in (keep, tokens, fidelity, max_loss)):
        if lloyd_steps:
            names = ", ".join(AMOUNTS)
            raise SettingsError(f"lloyd_steps {lloyd_steps} needs a budget to regroup around: give one of {names}")
        return None
    return Cut(keep=keep, tokens=tokens, fidelity=fidelity, max_loss=max_loss, lloyd_steps=lloyd_steps)
