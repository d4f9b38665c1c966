"""What is tried again, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from pipeline.errors import FailureClass

MAX_ATTEMPTS = 3
WORTH_RETRYING: frozenset[FailureClass] = frozenset({"io", "timeout", "crash", "out_of_memory", "encode"})
"""Failures that another attempt may not have. A corrupt file stays corrupt."""
WRITE_ATTEMPTS = 7
"""Attempts to write a shard. They span a minute, in which room may be made on a full disk."""
START_ATTEMPTS = 5
"""Rounds of failed starts after which a node gets no more workers of a kind."""
HOPELESS_CLIPS = 10
"""If so many clips fail before the first is encoded, the encoder is at fault and the run ends."""


class FailedAttempts:
    """Counts failed attempts of what is not finished."""

    def __init__(self) -> None:
        self._counts: Counter[Hashable] = Counter()

    def add(self, subject: Hashable, failure: FailureClass) -> int | None:
        """Count an attempt that failed.

        Returns:
            None if the subject is to be tried again, else how many attempts it had: it is given up.
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
        """Take back an attempt that something else ended."""
        if self.count(subject) > 1:
            self._counts[subject] -= 1
        else:
            self.clear(subject)

    def clear(self, subject: Hashable) -> None:
        """Forget the attempts of a subject that succeeded."""
        self._counts.pop(subject, None)


def pause_s(attempt: int) -> float:
    """Seconds before a shard is written, or a worker started, again after so many failed attempts: 1, 2, 4, ..."""
    return float(2 ** (attempt - 1))
