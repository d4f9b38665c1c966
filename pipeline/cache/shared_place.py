"""Where the next epoch begins, in memory that the workers of a data loader see, however long they live."""

from __future__ import annotations

import torch

from pipeline.cache.epoch import Phase, Place, Split
from pipeline.errors import SettingsError

MOST_PHASES = 64
NUMBERS = 4
"""Of a phase."""


class SharedPlace:
    """A place that the process of the training loop writes and its workers read when they begin an epoch."""

    def __init__(self) -> None:
        # Epoch, workers that have read, phases, and the phases' numbers.
        numbers = torch.zeros(3 + MOST_PHASES * NUMBERS, dtype=torch.int64)
        self._numbers: torch.Tensor = numbers.share_memory_()  # type: ignore[no-untyped-call]

    def get(self) -> Place:
        """The place."""
        numbers = self._numbers.numpy()
        epoch, _, count = numbers[:3].tolist()
        rest = numbers[3 : 3 + count * NUMBERS].tolist()
        phases = (rest[i * NUMBERS : (i + 1) * NUMBERS] for i in range(count))
        return Place(epoch, tuple(Phase(Split(*split), samples) for *split, samples in phases))

    def put(self, place: Place) -> None:
        """Change it.

        Raises:
            SettingsError: the epoch was gone on with too often.
        """
        if len(place.phases) > MOST_PHASES:
            raise SettingsError(
                f"this epoch was gone on with {len(place.phases)} times under other ranks or workers, "
                f"at most {MOST_PHASES} can be told: begin an epoch with set_epoch"
            )
        flat = [number for phase in place.phases for number in (*phase.split, phase.samples)]
        self._numbers.numpy()[: 3 + len(flat)] = (place.epoch, 0, len(place.phases), *flat)

    @property
    def num_workers(self) -> int:
        """Workers of a data loader that have begun to read since the place was put; 0 where none have."""
        return int(self._numbers[1])

    def note_workers(self, num_workers: int) -> None:
        """A worker begins to read."""
        self._numbers[1] = num_workers
