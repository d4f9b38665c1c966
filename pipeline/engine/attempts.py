"""What is tried again, and how often: the one place that counts strikes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from pipeline.errors import FailureClass

MAX_ATTEMPTS = 3
WORTH_RETRYING: frozenset[FailureClass] = frozenset({"io", "timeout", "crash", "out_of_memory", "encode"})
"""What may go well another time. A corrupt file stays corrupt."""
WRITE_ATTEMPTS = 7
"""Of a shard. They span a minute, in which somebody may make room on the disk."""
START_ATTEMPTS = 5
"""Rounds of starts of one kind of worker on one node that end before the worker is ready."""
HOPELESS_CLIPS = 10
"""Clips that no encoder can take before any was encoded: then it is not the clips."""


class FailedAttempts:
    """Failed attempts of what is not settled yet."""

    def __init__(self) -> None:
        self._counts: Counter[Hashable] = Counter()

    def add(self, subject: Hashable, failure: FailureClass) -> int | None:
        """Count an attempt that failed.

        Returns:
            None where the subject is to be tried again, else how many attempts it had: it is given up.
        """
        self._counts[subject] += 1
        if failure in WORTH_RETRYING and self._counts[subject] < MAX_ATTEMPTS:
            return None
        return self._counts.pop(subject)

    def count(self, subject: Hashable) -> int:
        """Attempts that failed so far."""
        return self._counts.get(subject, 0)

    def __len__(self) -> int:
        return len(self._counts)

    def forgive(self, subject: Hashable) -> None:
        """An attempt was ended by something else."""
        if self.count(subject) > 1:
            self._counts[subject] -= 1
        else:
            self.clear(subject)

    def clear(self, subject: Hashable) -> None:
        """The subject went well."""
        self._counts.pop(subject, None)


def pause_s(attempt: int) -> float:
    """Seconds before a shard is written, or a worker started, again after so many failed attempts: 1, 2, 4, ..."""
    return float(2 ** (attempt - 1))
