"""The order of an epoch and who reads what of it: pure numbers, the same on every rank and worker.

An epoch is a line of samples. Each rank takes a stretch of it, each worker a part of the stretch. Where reading
has come to is a few whole numbers (`Place`), from which any other number of ranks and workers can tell what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SettingsError

Uneven = Literal["drop", "repeat", "keep"]
"""What becomes of the samples that do not divide among the ranks: `drop` leaves them out of this epoch, `repeat` fills
up with samples from the start of the line, `keep` gives some ranks one more than others."""
Line: TypeAlias = NDArray[np.int64]


class Split(NamedTuple):
    """Among whom an epoch is divided."""

    num_ranks: int = 1
    num_workers: int = 1
    """Of each rank's data loader."""
    batch_size: int = 1
    """Samples that a worker reads before it is the next worker's turn."""

    def turn(self, samples: int) -> int:
        """The worker that is next after so many samples."""
        return samples // self.batch_size % self.num_workers


class Phase(NamedTuple):
    """A part of an epoch that was read under one split."""

    split: Split
    samples: int
    """Taken by each rank."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far reading has come. The same on all ranks, because all take equally many samples."""

    epoch: int = 0
    phases: tuple[Phase, ...] = ()
    """Of this epoch, in order. Another one begins where another number of ranks or workers reads on."""

    def under(self, split: Split) -> Place:
        """This place, about to be read on from under a split."""
        last = self.phases[-1] if self.phases else None
        # Within a batch no worker's turn has come: what is left is dealt anew.
        if last is not None and last.split == split and last.samples % split.batch_size == 0:
            return self
        # A phase in which nothing was read changes nothing.
        return replace(self, phases=(*(p for p in self.phases if p.samples), Phase(split, 0)))

    def after(self, samples: int) -> Place:
        """This place, after so many more samples of each rank."""
        last = self.phases[-1]
        return replace(self, phases=(*self.phases[:-1], Phase(last.split, last.samples + samples)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """The samples of one cache, as far as their order goes."""

    blocks: NDArray[np.int64]
    """(S,) the block, such as a shard, in which each sample lies: read together, and shuffled as a whole."""
    weight: float | None = None
    """Share of an epoch, relative to the other sources; None: each sample once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffle:
    """Blocks in random order; and within a stretch of so many samples, the samples."""

    seed: int
    window: int
    """Samples that one worker holds in memory, at most, to draw the next from."""


def epoch_line(sources: Sequence[Source], shuffle: Shuffle | None, epoch: int) -> Line:
    """(L,) numbers of samples, those of a later source counted on from the earlier ones: the order of one epoch.

    With weights, L is the number of samples of all sources, divided among them by weight; a source that is due more
    often than it has samples is read again, in another order.
    """
    sizes = [len(source.blocks) for source in sources]
    counts = _counts(sizes, [source.weight for source in sources])
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
    parts = [
        start + _passes(source.blocks, count, None if shuffle is None else shuffle.seed + number, epoch)
        for number, (source, count, start) in enumerate(zip(sources, counts, starts, strict=True))
    ]
    line = np.concatenate(parts)
    if shuffle is None or len(parts) == 1:
        return line
    # Each source is spread evenly over the line, so that every stretch of it has the same mixture.
    due = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    return line[np.argsort(due, kind="stable")]


def _counts(sizes: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    """Samples of an epoch that each source gives."""
    if all(weight is None for weight in weights):
        return list(sizes)
    shares = np.array([weight or 0.0 for weight in weights])
    shares = np.where(np.array(sizes) > 0, shares, 0.0)
    exact = shares / shares.sum() * sum(sizes)
    counts = np.floor(exact).astype(int)
    # The largest remainders get what rounding down has left.
    for number in np.argsort(counts - exact, kind="stable")[: sum(sizes) - int(counts.sum())]:
        counts[number] += 1
    return [int(count) for count in counts]


def _passes(blocks: NDArray[np.int64], count: int, seed: int | None, epoch: int) -> Line:
    """(count,) samples of one source: whole passes over it, each in an order of its own, and part of one."""
    passes = []
    samples = np.arange(len(blocks))
    for number in range(-(-count // max(len(blocks), 1))):
        if seed is None:
            passes.append(samples)
        else:
            block_keys = mixed(blocks, seed, epoch, number)
            passes.append(np.lexsort((samples, blocks, block_keys)))
    return np.concatenate([*passes, samples[:0]])[:count].astype(np.int64)


def mixed(values: NDArray[np.int64], *salts: int) -> NDArray[np.uint64]:
    """Evenly spread numbers that depend on values and salts alone: splitmix64, so the same for every version of numpy.

    Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    state = values.astype(np.uint64)
    with np.errstate(over="ignore"):
        for salt in (*salts, 0):
            state = state + np.uint64((salt * 0xD1342543DE82EF95 + 0x9E3779B97F4A7C15) % (1 << 64))
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


@dataclass(frozen=True, slots=True)
class Dealer:
    """An epoch's line, and how it is divided."""

    line: Line
    shuffle: Shuffle | None
    epoch: int
    uneven: Uneven

    def left(self, place: Place, rank: int, worker: int) -> Line:
        """Samples that one worker of one rank has still to read, under the split of the place's last phase."""
        *before, last = place.phases
        rest = np.arange(len(self.line))
        for number, phase in enumerate(before):
            rest = self._rest(rest, phase, number)
        mine = self._piece(rest, last.split, len(before), rank, worker)
        return self.line[mine[taken_by(last.split, worker, last.samples) :]]

    def num_left(self, place: Place, rank: int) -> int:
        """Samples that one rank has still to read."""
        return sum(len(self.left(place, rank, worker)) for worker in range(place.phases[-1].split.num_workers))

    def _rest(self, line: Line, phase: Phase, number: int) -> Line:
        """What a phase left of what it began with, in an order that keeps neighbours together."""
        split, taken = phase.split, np.zeros(len(self.line), dtype=bool)
        pieces = []
        for rank in range(split.num_ranks):
            for worker in range(split.num_workers):
                piece = self._piece(line, split, number, rank, worker)
                done = taken_by(split, worker, phase.samples)
                taken[piece[:done]] = True
                pieces.append(piece[done:])
        # Those that were dropped come last.
        order = np.concatenate([*pieces, line])
        _, first = np.unique(order, return_index=True)
        rest = order[np.sort(first)]
        rest = rest[~taken[rest]]
        return rest if self.shuffle is not None else np.sort(rest)

    def _piece(self, line: Line, split: Split, number: int, rank: int, worker: int) -> Line:
        counts = rank_counts(len(line), split.num_ranks, self.uneven)
        start = sum(counts[:rank])
        mine = line[np.arange(start, start + counts[rank]) % max(len(line), 1)]
        if self.shuffle is None:
            # In order: batches go around.
            in_turn: Line = mine[np.arange(len(mine)) // split.batch_size % split.num_workers == worker]
            return in_turn
        # Stretches: a worker reads few blocks, and each of them once.
        ends = np.cumsum([0, *(taken_by(split, w, len(mine)) for w in range(split.num_workers))])
        mine = mine[ends[worker] : ends[worker + 1]]
        window = np.arange(len(mine)) // self.shuffle.window
        return mine[np.lexsort((mixed(mine, self.shuffle.seed, self.epoch, number), window))]


def taken_by(split: Split, worker: int, samples: int) -> int:
    """How many of the first samples of a rank are a worker's: batches go around the workers."""
    rounds, rest = divmod(samples, split.batch_size * split.num_workers)
    return rounds * split.batch_size + min(max(rest - worker * split.batch_size, 0), split.batch_size)


def rank_counts(total: int, num_ranks: int, uneven: Uneven) -> list[int]:
    """Samples of each rank, of so many in all; the same for all ranks unless `uneven` is `keep`."""
    even, over = divmod(total, num_ranks)
    if uneven == "keep":
        return [even + (rank < over) for rank in range(num_ranks)]
    return [even + (uneven == "repeat" and over > 0)] * num_ranks


def place_of(state: dict[str, object]) -> Place:
    """The place that `state_of` has written.

    Raises:
        SettingsError: it is none.
    """
    try:
        phases = tuple(Phase(Split(*map(int, split)), int(samples)) for *split, samples in state["phases"])  # type: ignore[attr-defined]
        return Place(int(state["epoch"]), phases)  # type: ignore[call-overload]
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"this is no state of a TokenStream ({error!r}): give what state_dict() returned"
        ) from error


def state_of(place: Place) -> dict[str, object]:
    """A place as plain numbers, for `torch.save` or JSON."""
    return {"epoch": place.epoch, "phases": [[*phase.split, phase.samples] for phase in place.phases]}
