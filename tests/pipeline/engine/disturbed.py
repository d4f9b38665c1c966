"""Runs on Ray that are disturbed with SIGKILL, for tests and by hand.

    python -m tests.pipeline.engine.disturbed --kills 100 --driver-kills 30

prints kills, clips, lost and doubled clips, and whether the bytes are those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from pipeline.engine.ray_cluster import connect
from pipeline.shards.commits import read_manifests
from pipeline.shards.scan import read_shard
from pipeline.verify import verify
from tests.pipeline.runs import rows_of, run, tiny_recipe
from tests.processes import kill_all
from tests.synthetic import make_video
from tests.tiny_encoder import make_tiny_encoder

ROOT = Path(__file__).resolve().parents[3]
NODE = {"num_cpus": 2, "object_store_memory": 200 << 20}
KINDS = ("DecodeActor", "EncodeActor", "WriteActor", "node")
WEIGHTS = (4, 3, 2, 1)


@contextmanager
def three_nodes() -> Iterator[Cluster]:
    """A cluster of three nodes on this machine; the first holds the driver and is never killed."""
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    for _ in range(2):
        add_node(cluster)
    connect(cluster.address)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Cluster) -> None:
    """Ray gives up a node that takes 30 seconds to start, as it may on a busy machine."""
    for attempt in range(10):
        try:
            cluster.add_node(**NODE)
            return
        except Exception:
            if attempt == 9:
                raise


def actors(kind: str) -> list[int]:
    """Processes of one kind of actor on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::" + kind.encode()):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


class Killer:
    """Kills something every so often while a thread is at work, until it has killed enough."""

    def __init__(self, cluster: Cluster, kills: int, seed: int, pause_s: float) -> None:
        self._cluster, self._left, self._pause_s = cluster, kills, pause_s
        self._random = random.Random(seed)
        self.killed: Counter[str] = Counter()

    def disturb(self, work: threading.Thread) -> None:
        """Until the thread ends. Nodes can be added from the main thread alone, so that is where this runs."""
        while work.is_alive():
            work.join(self._random.uniform(0.5, 1.5) * self._pause_s)
            if not work.is_alive() or not self._left:
                continue
            kind = self._random.choices(KINDS, weights=WEIGHTS)[0]
            if self._kill(kind):
                self.killed[kind] += 1
                self._left -= 1

    def _kill(self, kind: str) -> bool:
        if kind == "node":
            node = self._random.choice(list(self._cluster.worker_nodes))
            self._cluster.remove_node(node, allow_graceful=False)
            add_node(self._cluster)
            return True
        pids = actors(kind)
        if not pids:
            return False
        try:
            os.kill(self._random.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def some_work(folder: Path, videos: int, frames: int) -> list[Path]:
    """Videos of which no two are alike."""
    made = [make_video(folder / f"{i}.mp4", frames=frames, fps=25, gop=50, bframes=2) for i in range(videos)]
    for i, path in enumerate(made):
        path.write_bytes(path.read_bytes() + bytes([i]))
    return made


def outcome(out: Path, unbroken: Path) -> dict[str, Any]:
    """What a disturbed run holds, against one that was not."""
    clips: Counter[str] = Counter()
    for manifest in read_manifests(out).values():
        for file in manifest.files:
            clips.update(clip.clip_id for clip in read_shard(out, file.name))
    expected = rows_of(unbroken)
    return {
        "clips": len(clips),
        "lost": len(expected.keys() - clips.keys()),
        "doubled": sum(count > 1 for count in clips.values()),
        "bytes_equal": rows_of(out) == expected,
        "problems": list(verify(out).problems),
    }


def disturb_workers(
    encoder: Path, folder: Path, *, kills: int, seed: int, pause_s: float, videos: int = 8
) -> list[dict[str, Any]]:
    """Extract on three nodes while workers and nodes are killed, as often as it takes."""
    inputs = some_work(folder, videos=videos, frames=751)
    recipe = tiny_recipe(encoder, fps=25, clip_frames=31)
    run(inputs, folder / "unbroken", recipe)
    results = []
    left = kills
    with three_nodes() as cluster:
        while left > 0:
            killer = Killer(cluster, left, seed + len(results), pause_s)
            out = folder / f"out-{len(results)}"
            codes: list[int] = []
            work = threading.Thread(
                target=lambda o=out, c=codes: c.append(run(inputs, o, recipe, engine="ray", workers=None).exit_code)
            )
            work.start()
            killer.disturb(work)
            left -= sum(killer.killed.values())
            results.append({"killed": dict(killer.killed), "exit_code": codes, **outcome(out, folder / "unbroken")})
            print(json.dumps(results[-1]), flush=True)
    return results


def disturb_driver(encoder: Path, folder: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Kill the driver and all that it started, again and again; then let it finish."""
    videos = some_work(folder, videos=8, frames=751)
    recipe = tiny_recipe(encoder, fps=25, clip_frames=31)
    run(videos, folder / "unbroken", recipe)
    out = folder / "out"
    command = [sys.executable, "-m", "jobs.cli", "extract", *map(str, videos), "--encoder", str(encoder)]
    command += ["--out", str(out), "--strategy", "naive", "--keep", "0.2", "--fps", "25", "--clip-frames", "31"]
    command += ["--gpus", "0", "--batch-frames", "2", "--compute-dtype", "float32", "--engine", "ray"]
    command += ["--shard-clips", "4"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    chance = random.Random(seed)
    killed = 0
    while killed < kills:
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = committed(out)
        grown = chance.randint(0, 2)
        wait_until(lambda p=process, n=before + grown: p.poll() is not None or committed(out) >= n)
        time.sleep(chance.uniform(0.0, 2.0))
        if process.poll() is not None:
            # It was through before it could be killed: the rest of the kills need a new run.
            break
        kill_all(process)
        killed += 1
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    result = {"killed": {"driver": killed}, "exit_code": finished.returncode, **outcome(out, folder / "unbroken")}
    print(json.dumps(result), flush=True)
    return result


def committed(out: Path) -> int:
    """Shards that are there."""
    return len(list((out / "commits").glob("*.json")))


def wait_until(condition: Callable[[], bool], limit_s: float = 120.0) -> None:
    """Poll."""
    until_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def main() -> None:
    """Print one line a run, and one of sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="of workers and nodes, while the driver lives")
    parser.add_argument("--driver-kills", type=int, default=30)
    parser.add_argument("--pause-s", type=float, default=2.0, help="between two kills, on average")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        encoder, workers, driver = (Path(folder) / name for name in ("encoder", "workers", "driver"))
        for part in (encoder, workers, driver):
            part.mkdir()
        make_tiny_encoder(encoder)
        results = disturb_workers(encoder, workers, kills=options.kills, seed=options.seed, pause_s=options.pause_s)
        left, seed = options.driver_kills, options.seed
        while left > 0:
            place = driver / str(seed)
            place.mkdir()
            results.append(disturb_driver(encoder, place, kills=left, seed=seed))
            left -= results[-1]["killed"]["driver"]
            seed += 1
    print(json.dumps(sums(results)))


def sums(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All runs together."""
    killed: Counter[str] = Counter()
    for result in results:
        killed.update(result["killed"])
    counts = {name: sum(result[name] for result in results) for name in ("clips", "lost", "doubled")}
    is_sound = all(result["bytes_equal"] and not result["problems"] for result in results)
    return {"runs": len(results), "kills": dict(killed), **counts, "bytes_equal_and_verified": is_sound}


if __name__ == "__main__":
    main()
