"""The data loader of a stream, which knows what has come out of its workers and so where to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.cache.epoch import Place

if TYPE_CHECKING:
    from pipeline.cache.token_stream import TokenStream


class TokenLoader:
    """Batches of a stream. An iteration is an epoch; the order is that of the stream, whatever the workers' speed."""

    def __init__(
        self,
        stream: TokenStream,
        batch_size: int,
        num_workers: int,
        collate_fn: Callable[[list[Any]], Any],
        options: Mapping[str, Any],
    ) -> None:
        self.stream, self.batch_size = stream, batch_size
        self._num_workers, self._collate_fn, self._options = num_workers, collate_fn, dict(options)

    def __len__(self) -> int:
        """Batches of the next iteration."""
        left = self.stream.samples_left(self.stream.begins_at, max(self._num_workers, 1))
        return left // self.batch_size if self._options.get("drop_last") else -(-left // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        place = self.stream.begin_epoch(max(self._num_workers, 1))
        left = self.stream.samples_left(place, max(self._num_workers, 1))
        batches = DataLoader(
            _FromPlace(self.stream, place, left),
            batch_size=self.batch_size,
            num_workers=self._num_workers,
            collate_fn=self._collate_fn,
            **self._options,
        )
        for batch in batches:
            taken = min(self.batch_size, left)
            left -= taken
            place = place.after(taken)
            self.stream.reached(place)
            yield batch
        self.stream.set_epoch(place.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Where training is: after the last batch that came out. See `TokenStream.state_dict`."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken. See `TokenStream.load_state_dict`."""
        self.stream.load_state_dict(state)


class _FromPlace(IterableDataset[Any]):
    """What workers read: the stream from one place on."""

    def __init__(self, stream: TokenStream, place: Place, count: int) -> None:
        self._stream, self._place, self._count = stream, place, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        return self._stream.read(self._place, 0 if worker is None else worker.id)
