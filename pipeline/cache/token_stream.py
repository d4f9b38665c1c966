"""`TokenStream`: the clips of one or several caches for training, over ranks and workers, and on from the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.cache.cached_clip import CachedClip
from pipeline.cache.clip_fields import TRAINING, check_fields
from pipeline.cache.collate import JoinedClips, collate, joined
from pipeline.cache.epoch import Dealer, Place, Shuffle, Source, Split, Uneven, epoch_line, place_of, state_of
from pipeline.cache.shared_place import SharedPlace
from pipeline.cache.stream_sources import StreamSource, check_alike, open_caches, source_of
from pipeline.cache.token_cache import TokenCache
from pipeline.cache.token_loader import TokenLoader
from pipeline.counted import counted
from pipeline.errors import RunFolderError, SettingsError
from pipeline.store import Where

Sample = CachedClip | JoinedClips
WINDOW = 128


class TokenStream(IterableDataset[Any]):
    """Clips of caches in the order of an epoch, for one rank; an iterable dataset of torch.

    Every iteration is one epoch; the next has another order. All ranks give equally many samples, unless `uneven` is
    `keep`. `loader` makes the data loader that belongs to it, which counts what has come out of its workers, so that
    `state_dict` is exact while workers read ahead.
    """

    def __init__(
        self,
        caches: TokenCache | Where | Sequence[TokenCache | Where],
        *,
        columns: Iterable[str] = TRAINING,
        join_videos: bool = False,
        weights: Sequence[float] | None = None,
        allow_different: bool = False,
        shuffle_seed: int | None = None,
        window: int = WINDOW,
        rank: int = 0,
        num_ranks: int = 1,
        uneven: Uneven = "drop",
        batch_size: int = 1,
        **budget: float,
    ) -> None:
        """Make a stream; nothing is read yet.

        Args:
            caches: A cache, or the folder or address of a run; or several of them.
            columns: Arrays that are read, by their names in `CachedClip`; the others are None.
            join_videos: Whether a sample is a whole video, its clips joined, instead of a clip.
            weights: For each cache its share of an epoch; without them every sample comes once an epoch.
            allow_different: Whether caches may differ in settings that decide the tokens.
            shuffle_seed: Of the order, the same on all ranks; None keeps the order of positions.
            window: Samples among which a worker draws the next: the bound on what it holds in memory.
            rank: This process among `num_ranks`.
            num_ranks: Processes that read together.
            uneven: What becomes of samples that do not divide among the ranks: `drop` (others each epoch, where it is
                shuffled), `repeat` (some come twice) or `keep` (ranks differ by one: for evaluation).
            batch_size: Samples of a batch of the data loader, if it is not made by `loader`.
            budget: `keep`, `tokens`, `fidelity` or `max_loss`, and `lloyd_steps`, as for `TokenCache`, for caches that
                are given by their folder.

        Raises:
            RunFolderError: there is no run, it holds no clips, or no trees to cut.
            SettingsError: an argument is out of range, or the caches differ.
        """
        if not 0 <= rank < num_ranks:
            raise SettingsError(f"rank {rank} must be 0 or more and below num_ranks {num_ranks}")
        if window < 1 or batch_size < 1:
            raise SettingsError(f"window {window} and batch_size {batch_size} must be 1 or more")
        if uneven not in ("drop", "repeat", "keep"):
            raise SettingsError(f"uneven {uneven!r} is unknown: choose drop, repeat or keep")
        self.caches = open_caches(caches, budget)
        check_alike(self.caches, allow_different=allow_different)
        self._sources: list[StreamSource] = [source_of(cache, join_videos=join_videos) for cache in self.caches]
        self._order = _weighted(self._sources, weights)
        self._starts = np.cumsum([0, *(len(source.spans) for source in self._sources)])
        self._columns = check_fields(columns)
        self._shuffle = None if shuffle_seed is None else Shuffle(seed=shuffle_seed, window=window)
        self._rank, self._num_ranks, self._uneven = rank, num_ranks, uneven
        self._batch_size, self._join_videos = batch_size, join_videos
        self._begin = SharedPlace()
        self._now, self._taken = Place(), 0
        if not self._starts[-1]:
            raise RunFolderError(f"{self.caches[0].path} holds no clips: `vtm status` says how far its run is")
        if uneven == "drop" and self._starts[-1] < num_ranks:
            raise SettingsError(
                f"{num_ranks} ranks are too many for {counted(int(self._starts[-1]), 'sample')}: take fewer, or "
                "uneven='repeat'"
            )

    def __repr__(self) -> str:
        samples = counted(int(self._starts[-1]), "video" if self._join_videos else "clip")
        paths = ", ".join(repr(str(cache.path)) for cache in self.caches)
        return f"TokenStream({paths}, {samples}, rank {self._rank} of {self._num_ranks})"

    def __len__(self) -> int:
        """Samples that the next iteration gives on this rank."""
        return self.samples_left(self._begin.get(), 1)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is not None:
            self._begin.note_workers(worker.num_workers)
            place = self._begin.get().under(self._split(worker.num_workers))
            yield from self.read(place, worker.id)
            return
        place = self.begin_epoch(1)
        for sample in self.read(place, 0):
            self._taken += 1
            yield sample
        self.set_epoch(place.epoch + 1)

    def loader(
        self,
        *,
        batch_size: int | None = None,
        num_workers: int = 0,
        packed: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        **options: Any,
    ) -> TokenLoader:
        """A torch DataLoader of this stream that has `state_dict` and `load_state_dict`.

        Args:
            batch_size: Samples of a batch; the stream's own without it.
            num_workers: Processes that read ahead; 0 reads in this one.
            packed: Whether `collate` packs the samples end to end instead of padding them.
            collate_fn: What makes a batch, instead of `collate`.
            options: Of `torch.utils.data.DataLoader`, such as `pin_memory` and `prefetch_factor`.
        """
        if batch_size is not None:
            if batch_size < 1:
                raise SettingsError(f"batch_size {batch_size} must be 1 or more")
            self._batch_size = batch_size
        made = partial(collate, packed=packed) if collate_fn is None else collate_fn
        return TokenLoader(self, self._batch_size, num_workers, made, options)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, from its start."""
        self.reached(Place(epoch))
        self._begin.put(self._now)

    def state_dict(self, samples: int | None = None) -> dict[str, Any]:
        """Where reading is, the same on every rank: plain numbers and text.

        Args:
            samples: What this rank has taken of the current epoch since it began or was gone on with. Needed where
                workers of a DataLoader of your own read the stream, because they read ahead; `loader` counts itself.

        Raises:
            SettingsError: it is needed and not given.
        """
        place, workers = self._now, self._begin.num_workers
        place = place.after(self._taken) if self._taken else place
        if samples is not None:
            place = self._begin.get().under(self._split(max(workers, 1))).after(samples)
        elif workers:
            raise SettingsError(
                "workers of a DataLoader read this stream ahead of its batches: "
                "give state_dict(samples=...) what this rank has taken, or use stream.loader(...), which counts"
            )
        return state_of(place) | {"of": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on where a state was taken, whatever the number of ranks and workers was.

        Raises:
            SettingsError: it is no such state, or of other caches, or of another order.
        """
        place = place_of(state)
        if state.get("of") != self._identity():
            told, mine = state.get("of"), self._identity()
            names = [name for name in mine if not isinstance(told, dict) or told.get(name) != mine[name]]
            raise SettingsError(
                f"this state is of another stream ({', '.join(names)} differ): it can only go on over the same caches "
                "in the same order; begin anew with set_epoch"
            )
        self.reached(place)
        self._begin.put(place)

    def read(self, place: Place, worker: int) -> Iterator[Any]:
        """What one worker of this rank has still to read, from a place on, without counting it.

        A data loader begins with its worker 0, whose turn it need not be: the workers change places.
        """
        split, samples = place.phases[-1]
        mine = self._dealer(place.epoch).left(place, self._rank, (worker + split.turn(samples)) % split.num_workers)
        return self._samples(mine)

    def samples_left(self, place: Place, num_workers: int) -> int:
        """Samples of this rank from a place on."""
        place = place.under(self._split(num_workers))
        return self._dealer(place.epoch).num_left(place, self._rank)

    @property
    def begins_at(self) -> Place:
        """Where the next iteration begins."""
        return self._begin.get()

    def reached(self, place: Place) -> None:
        """Reading has come to a place: what `state_dict` tells."""
        self._now, self._taken = place, 0

    def begin_epoch(self, num_workers: int) -> Place:
        """Where this iteration begins; another one begins at the start of the same epoch, unless this one ends."""
        place = self._begin.get().under(self._split(num_workers))
        self.set_epoch(place.epoch)
        self.reached(place)
        return place

    def _split(self, num_workers: int) -> Split:
        return Split(self._num_ranks, num_workers, self._batch_size if num_workers > 1 else 1)

    def _dealer(self, epoch: int) -> Dealer:
        line = epoch_line(self._order, self._shuffle, epoch)
        return Dealer(line, self._shuffle, epoch, self._uneven)

    def _samples(self, numbers: np.ndarray[Any, Any]) -> Iterator[Any]:
        """The samples of these numbers, in this order; each cache is read by a reader of its own."""
        if len(self.caches) == 1 and not self._join_videos:
            yield from self.caches[0].read(numbers.tolist(), self._columns)
            return
        which = (np.searchsorted(self._starts, numbers, side="right") - 1).tolist()
        first = self._starts.tolist()
        spans = [self._sources[w].spans[number - first[w]] for w, number in zip(which, numbers.tolist(), strict=True)]
        clips = []
        for number, cache in enumerate(self.caches):
            own = [position for w, span in zip(which, spans, strict=True) if w == number for position in span]
            clips.append(cache.read(own, self._columns))
        for number, span in zip(which, spans, strict=True):
            if self._join_videos:
                yield joined([next(clips[number]) for _ in span])
            else:
                yield next(clips[number])

    def _identity(self) -> dict[str, Any]:
        """What an order depends on, beside the ranks and workers."""
        return {
            "fingerprints": [cache.run["fingerprint"] for cache in self.caches],
            "clips": [len(cache) for cache in self.caches],
            "weights": [source.weight for source in self._order],
            "join_videos": self._join_videos,
            "shuffle_seed": None if self._shuffle is None else self._shuffle.seed,
            "window": None if self._shuffle is None else self._shuffle.window,
            "uneven": self._uneven,
        }


def _weighted(sources: Sequence[StreamSource], weights: Sequence[float] | None) -> list[Source]:
    if weights is None:
        return [Source(blocks=source.blocks) for source in sources]
    if len(weights) != len(sources) or not all(0 <= weight < float("inf") for weight in weights) or not sum(weights):
        raise SettingsError(
            f"weights {list(weights)} must be one for each cache ({len(sources)}), 0 or more, not all 0"
        )
    for source, weight in zip(sources, weights, strict=True):
        if weight and not len(source.spans):
            raise SettingsError("a cache without clips cannot have a weight: leave it out")
    return [Source(blocks=source.blocks, weight=float(weight)) for source, weight in zip(sources, weights, strict=True)]
