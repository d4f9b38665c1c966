"""Where each clip of a run lies: positions in order of video id and clip index, and the shard and row of each."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.plan.units import Clip
from pipeline.shards.rows import Rows


class ClipPlace(NamedTuple):
    """One clip."""

    clip_id: str
    shard: int
    """Position among the manifests."""
    row: int


class ClipPlaces:
    """All committed clips of a run."""

    def __init__(self, runs: Sequence[Rows]) -> None:
        """Take the clips in order of video id and index, each once, as `first_of_each` gives them."""
        self.runs = runs
        self._ends = list(accumulate(run.count for run in runs))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, position: int) -> ClipPlace:
        """A clip by position, 0 or more and below the length."""
        number = bisect.bisect_right(self._ends, position)
        run, offset = self.runs[number], position - (self._ends[number - 1] if number else 0)
        return ClipPlace(Clip(run.video_id, run.first + offset).clip_id, run.shard, run.row + offset)

    def find(self, clip_id: str) -> int | None:
        """The position of a clip; None where there is none of this id."""
        video_id, _, text = clip_id.partition("-")
        if not text.isdigit() or Clip(video_id, int(text)).clip_id != clip_id:
            return None
        index = int(text)
        number = bisect.bisect_right(self.runs, (video_id, index), key=lambda run: (run.video_id, run.first)) - 1
        if number < 0:
            return None
        run = self.runs[number]
        if run.video_id != video_id or index >= run.first + run.count:
            return None
        return self._ends[number] - run.count + index - run.first

    def of_videos(self) -> dict[str, range]:
        """Positions of each video's clips in order of time, by video id."""
        spans: dict[str, range] = {}
        for run, end in zip(self.runs, self._ends, strict=True):
            first = spans[run.video_id].start if run.video_id in spans else end - run.count
            spans[run.video_id] = range(first, end)
        return spans

    def shards(self) -> NDArray[np.int64]:
        """(len(self),) the shard in which each clip lies, in order of position."""
        counts = [run.count for run in self.runs]
        return np.repeat(np.array([run.shard for run in self.runs], dtype=np.int64), counts)
