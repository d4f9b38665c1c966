"""One loss for a whole run: where every clip's merge tree is cut so that a number of tokens serves the run best.

Losses add up, in summed cosine, over all clips. So of all ways to leave some number of tokens, the one that takes every
merge up to one loss keeps most: a clip that is hard to merge is left more tokens than one that is not. The loss is
found exactly, in memory that does not grow with the run: by its upper 16 bits, then by its lower ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.errors import RunFolderError, SettingsError
from pipeline.shards.commits import read_manifests
from pipeline.shards.run_folder import read_run
from pipeline.shards.scan import read_shard
from pipeline.store import Where, open_store

COLUMNS = ("clip_id", "grid_thw", "fidelity", "loss_bytes")
HALF_BITS = 16


@dataclass(frozen=True, slots=True, eq=False)
class ClipLosses:
    """What a budget must know of a clip. M tokens stored for N source patches."""

    num_sources: int
    fidelity: float
    """Of the stored tokens."""
    loss_M: NDArray[np.float32]

    def left(self, max_loss: float) -> int:
        """Tokens after all merges that cost at most this."""
        return int(np.count_nonzero(self.loss_M > max_loss))

    def fidelity_below(self, max_loss: float) -> float:
        """The fidelity after them."""
        return self.fidelity - float(self.loss_M[self.loss_M <= max_loss].sum(dtype=np.float64)) / self.num_sources

    def fidelity_of(self, num_tokens: int) -> float:
        """The fidelity with so many tokens."""
        cheapest = np.sort(self.loss_M)[: max(0, len(self.loss_M) - num_tokens)]
        return self.fidelity - float(cheapest.sum(dtype=np.float64)) / self.num_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBudget:
    """What one loss leaves of a run."""

    max_loss: float
    tokens: int
    sources: int
    clips: int
    mean_fidelity: float
    """Over all source patches."""
    worst_fidelity: float
    """Of the clip that has least."""
    same_share_fidelity: float
    """The mean where every clip keeps the same share, for comparison."""


def run_budgets(out: Where, *, keeps: Sequence[float] = (), tokens: Sequence[int] = ()) -> list[RunBudget]:
    """The losses that leave shares of a run's source patches, or numbers of tokens over all its clips.

    Args:
        out: run folder of `--strategy tree`.
        keeps: shares, above 0 and at most 1.
        tokens: numbers, of the whole run.

    Raises:
        RunFolderError: it is no run, or one without trees.
        SettingsError: fewer tokens than clips are asked for, or a share is out of range.
    """
    for keep in keeps:
        if not 0 < keep <= 1:
            raise SettingsError(f"--keep {keep} must be above 0 and at most 1: it is a share of the source patches")
    sources, clips, upper = _upper_bits(out)
    wanted = [int(keep * sources) for keep in keeps] + list(tokens)
    for number in wanted:
        if number < clips:
            raise SettingsError(
                f"{counted(number, 'token')} cannot be left of {counted(clips, 'clip')}, each of which keeps one: "
                "ask for more"
            )
    bins = [_bin_of(upper, number) for number in wanted]
    lower = _lower_bits(out, {bin_ for bin_, _ in bins if bin_ is not None})
    losses = [0.0 if bin_ is None else _loss_of(bin_, _bin_of(lower[bin_], rest)[0]) for bin_, rest in bins]
    return _outcomes(out, losses)


def clip_losses(out: Where) -> Iterator[ClipLosses]:
    """The trees of all committed clips, one row group in memory at a time.

    Raises:
        RunFolderError: a clip has none.
    """
    settings = read_run(out)["settings"]
    if settings.get("strategy") != "tree":
        raise RunFolderError(
            f"{out} holds no merge trees (--strategy {settings.get('strategy')}): extract with --strategy tree"
        )
    for manifest in read_manifests(out).values():
        for file in manifest.files[:1]:
            if file.name.endswith(".parquet"):
                yield from _of_parquet(out, file.name)
            else:
                for clip in read_shard(out, file.name):
                    assert clip.loss is not None, "a run of trees holds them"
                    yield ClipLosses(len(clip.group), clip.fidelity, clip.loss)


def _of_parquet(out: Where, name: str) -> Iterator[ClipLosses]:
    with open_store(out).open(name) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(columns=list(COLUMNS), batch_size=64):
            for row in batch.to_pylist():
                yield ClipLosses(
                    int(np.prod(row["grid_thw"])), row["fidelity"], np.frombuffer(row["loss_bytes"], dtype="<f4")
                )


def _upper_bits(out: Where) -> tuple[int, int, NDArray[np.int64]]:
    """Source patches, clips, and how many losses have which upper bits: positive floats are ordered as bits are."""
    sources = clips = 0
    upper = np.zeros(1 << HALF_BITS, dtype=np.int64)
    for clip in clip_losses(out):
        sources, clips = sources + clip.num_sources, clips + 1
        upper += np.bincount(clip.loss_M.view(np.uint32) >> HALF_BITS, minlength=1 << HALF_BITS)
    return sources, clips, upper


def _lower_bits(out: Where, bins: set[int]) -> dict[int, NDArray[np.int64]]:
    lower = {bin_: np.zeros(1 << HALF_BITS, dtype=np.int64) for bin_ in bins}
    if bins:
        for clip in clip_losses(out):
            bits = clip.loss_M.view(np.uint32)
            for bin_, counts in lower.items():
                mine = bits[bits >> HALF_BITS == bin_] & 0xFFFF
                counts += np.bincount(mine, minlength=1 << HALF_BITS)
    return lower


def _bin_of(counts: NDArray[np.int64], wanted: int) -> tuple[int | None, int]:
    """The highest bin at which more than `wanted` are counted from above, and what is still wanted of it."""
    from_above = np.cumsum(counts[::-1])
    over = np.searchsorted(from_above, wanted, side="right")
    if over == len(counts):
        return None, 0
    return len(counts) - 1 - int(over), wanted - int(from_above[over] - counts[::-1][over])


def _loss_of(upper: int, lower: int | None) -> float:
    assert lower is not None, "the bin holds more than is wanted of it"
    return float(np.uint32(upper << HALF_BITS | lower).view(np.float32))


def _outcomes(out: Where, losses: Sequence[float]) -> list[RunBudget]:
    left = [0] * len(losses)
    lost = np.zeros(len(losses))
    worst = np.full(len(losses), np.inf)
    clips = sources = 0
    for clip in clip_losses(out):
        clips, sources = clips + 1, sources + clip.num_sources
        for i, loss in enumerate(losses):
            fidelity = clip.fidelity_below(loss)
            left[i] += clip.left(loss)
            lost[i] += (1 - fidelity) * clip.num_sources
            worst[i] = min(worst[i], fidelity)
    even = np.zeros(len(losses))
    for clip in clip_losses(out):
        for i, tokens in enumerate(left):
            share = round(tokens / sources * clip.num_sources)
            even[i] += clip.fidelity_of(max(1, share)) * clip.num_sources
    return [
        RunBudget(
            max_loss=loss,
            tokens=left[i],
            sources=sources,
            clips=clips,
            mean_fidelity=float(1 - lost[i] / sources),
            worst_fidelity=float(worst[i]),
            same_share_fidelity=float(even[i] / sources),
        )
        for i, loss in enumerate(losses)
    ]
