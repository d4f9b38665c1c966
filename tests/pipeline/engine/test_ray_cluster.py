"""Several nodes on one machine: placement by what the nodes have, and runs that SIGKILL disturbs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

LIMIT_S = 600
pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S + 30)]
# Each in a process of its own: the session's Ray is another cluster, and a process can join only one.


def in_own_process(code: str, *arguments: object) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


FAKE_GPUS = """
import sys
from pathlib import Path
import ray
from ray._private.state import available_resources_per_node
from ray.cluster_utils import Cluster
from pipeline.engine.job import ClipDone
from pipeline.engine.ray_cluster import connect
from tests.pipeline.engine.disturbed import some_work
from tests.pipeline.runs import RecordingListener, run, tiny_recipe

folder, encoder = Path(sys.argv[1]), Path(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0, "object_store_memory": 100 << 20})
gpu_node = cluster.add_node(num_cpus=4, num_gpus=2, object_store_memory=100 << 20).node_id
connect(cluster.address)


class Watcher(RecordingListener):
    def record(self, record):
        if isinstance(record, ClipDone) and not any(isinstance(r, ClipDone) for r in self.records):
            free = available_resources_per_node()
            self.free = {name == gpu_node: (node.get("CPU", 0), node.get("GPU", 0)) for name, node in free.items()}
        super().record(record)


watcher = Watcher()
videos = some_work(folder, videos=3, frames=251)
recipe = tiny_recipe(encoder, fps=25, clip_frames=31)
summary = run(videos, folder / "out", recipe, listener=watcher, engine="ray", workers=None, gpus=2, device="cpu")
tally = summary.tally
print(summary.exit_code, summary.clips, tally.num_encoders, tally.num_decoders, watcher.free)
assert summary.exit_code == 0 and summary.clips == 27
# Both GPUs are held with a core each, and decoders have the rest of the cores, of both nodes.
assert (tally.num_encoders, tally.num_decoders) == (2, 2 + 2)
assert watcher.free == {True: (0, 0), False: (0, 0)}, watcher.free
ray.shutdown()
cluster.shutdown()
"""


def test_encoders_hold_the_gpus_and_decoders_fill_the_rest(tiny_encoder: Path, tmp_path: Path) -> None:
    print(in_own_process(FAKE_GPUS, tmp_path, tiny_encoder))


DISTURBED = """
import sys
from pathlib import Path
from tests.pipeline.engine.disturbed import disturb_workers
results = disturb_workers(Path(sys.argv[2]), Path(sys.argv[1]), kills=5, seed=3, pause_s=1.0, videos=3)
killed = sum(sum(result["killed"].values()) for result in results)
assert killed >= 5, results
for result in results:
    assert (result["exit_code"], result["lost"], result["doubled"]) == ([0], 0, 0), result
    assert result["bytes_equal"] and not result["problems"], result
"""


def test_three_nodes_under_sigkill_lose_and_double_nothing(tiny_encoder: Path, tmp_path: Path) -> None:
    print(in_own_process(DISTURBED, tmp_path, tiny_encoder))
