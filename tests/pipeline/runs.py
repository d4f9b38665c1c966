"""Small real runs for tests: tiny videos, a tiny encoder, whichever engine."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.engine.job import Record
from pipeline.failed_range import FailedRange
from pipeline.run import extract
from pipeline.settings import Execution, Recipe
from pipeline.shards.scan import read_shard
from pipeline.summary import RunSummary
from tests.synthetic import make_video


class RecordingListener:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.records: list[Record] = []
        self.failures: list[FailedRange] = []
        self.planned_ns = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def planned(self, video_ns: int) -> None:
        assert video_ns > 0
        self.planned_ns += video_ns

    def record(self, record: Record) -> None:
        self.records.append(record)

    def failed(self, failed: FailedRange) -> None:
        self.failures.append(failed)


def tiny_recipe(encoder: Path, **changes: Any) -> Recipe:
    """Clips of 3 instants at 2 a second; 0.2 of the tokens kept."""
    settings: dict[str, Any] = {"encoder": str(encoder), "strategy": "naive", "keep": 0.2, "fps": Fraction(2)}
    return Recipe(**settings | {"clip_frames": 3, "batch_frames": 2, "compute_dtype": "float32"} | changes)


def run(
    inputs: Sequence[Path | str],
    out: Path,
    recipe: Recipe,
    *,
    listener: RecordingListener | None = None,
    **execution: Any,
) -> RunSummary:
    """One extraction."""
    settings: dict[str, Any] = {"engine": "inline", "gpus": 0, "workers": 2, "unit_clips": 2, "shard_clips": 4}
    names = [str(path) for path in inputs]
    return extract(names, out, recipe, Execution(**settings | execution), listener or RecordingListener())


def some_videos(folder: Path) -> list[Path]:
    """Three of different lengths: 7, 3 and 1 clips of the tiny recipe."""
    return [
        make_video(folder / "long.mp4", frames=251, fps=25, gop=50, bframes=2),
        make_video(folder / "short.mkv", frames=101, fps=25, gop=20, codec="mpeg4"),
        make_video(folder / "shortest.avi", frames=13, fps=13, codec="mpeg4", size=(48, 80)),
    ]


def rows_of(out: Path) -> dict[str, Any]:
    """Every clip's arrays as bytes, by id."""
    found: dict[str, Any] = {}
    for path in sorted((*(out / "shards").glob("[!.]*"), *(out / "webdataset").glob("[!.]*"))):
        for clip in read_shard(path.parent, path.name):
            assert clip.clip_id not in found or path.suffix == ".tar"
            found[clip.clip_id] = (
                clip.tokens.tobytes(),
                clip.sizes.tobytes(),
                clip.centers.tobytes(),
                clip.group.tobytes(),
                clip.pooled.tobytes(),
                clip.fidelity,
                clip.frame_time_ns.tobytes(),
                clip.grid_thw,
                None if clip.parent is None or clip.loss is None else (clip.parent.tobytes(), clip.loss.tobytes()),
            )
    return found
