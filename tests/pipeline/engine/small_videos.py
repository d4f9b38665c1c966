"""Many videos of one small clip each, on both engines in turn: what the engine costs a clip where clips are small.

    python -m tests.pipeline.engine.small_videos --videos 600 --rounds 3

prints wall and CPU seconds of each run, start-up aside, and the ratio of the medians. CPU seconds are those of this
process and all that it started and that has ended.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from tests.pipeline.runs import run, tiny_recipe
from tests.synthetic import make_video
from tests.tiny_encoder import make_tiny_encoder


def small_videos(folder: Path, count: int) -> list[Path]:
    """One clip each; no two alike."""
    folder.mkdir()
    data = make_video(folder / "first.mp4", frames=26, fps=25).read_bytes()
    (folder / "first.mp4").unlink()
    paths = [folder / f"{number:06d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(data + number.to_bytes(4, "big"))
    return paths


def measure(engine: str, videos: list[Path], encoder: Path, out: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one extraction after its start-up."""
    before_s = cpu_s()
    tally = run(videos, out, tiny_recipe(encoder), engine=engine, workers=None, shard_clips=32).tally
    assert tally.clips == len(videos)
    return tally.wall_s, cpu_s() - before_s


def cpu_s() -> float:
    """Of this process and its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Print a line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    walls_s: dict[str, list[float]] = {"inline": [], "ray": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "encoder").mkdir()
        encoder, videos = make_tiny_encoder(folder / "encoder"), small_videos(folder / "videos", options.videos)
        for number in range(options.rounds):
            for engine, found in walls_s.items():
                wall_s, spent_s = measure(engine, videos, encoder, folder / f"{engine}-{number}")
                found.append(wall_s)
                load = os.getloadavg()[0]
                print(f"{engine:7} wall {wall_s:7.2f} s  cpu {spent_s:7.2f} s  load {load:.1f}", flush=True)
    inline_s, ray_s = (statistics.median(found) for found in walls_s.values())
    print(f"{options.videos} videos: inline {inline_s:.2f} s, ray {ray_s:.2f} s, ratio {ray_s / inline_s:.2f}")


if __name__ == "__main__":
    main()
