"""`vtm bench plan`: planning and resuming a run of many videos, from scan records that are made up."""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from jobs.bench.machine import machine_name
from jobs.bench.memory import resident_bytes
from jobs.bench.numbers import count
from jobs.bench.output import show
from pipeline.engine.intake import ShardPacker
from pipeline.inputs.named import Input, Named, VideoSource
from pipeline.owed import owed_work, sort_inputs
from pipeline.plan.inputs import Listing, store_inputs
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.table import PlanRow, append_rows
from pipeline.plan.units import Unit
from pipeline.shards.commit_record import ShardFile, ShardManifest
from pipeline.shards.commits import commit, gather
from pipeline.shards.manifest import file_name, shard_sizes
from pipeline.shards.run_folder import read_state, unfinished, write_records
from pipeline.store import Store, open_store

CLIP_S = 60
RUN: dict[str, Any] = {
    "fingerprint": "0" * 16,
    "fingerprinted": {},
    "settings": {"fps": "1", "clip_frames": CLIP_S},
    "encoder": {},
}
BATCH = 5000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How large a run."""
    parser.add_argument("--videos", type=count, default=10_000, metavar="N", help="videos of the run")
    parser.add_argument("--video-clips", type=count, default=5, metavar="N", help="clips of each video, a minute each")
    parser.add_argument("--shard-clips", type=count, default=32, metavar="N", help="clips of a shard")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Plan, commit half, resume; print what each took."""
    with tempfile.TemporaryDirectory() as folder:
        row = measure(open_store(folder), options.videos, options.video_clips, options.shard_clips)
    show([row], machine=machine_name(), as_json=options.json)
    return 0


def measure(store: Store, videos: int, video_clips: int, shard_clips: int) -> dict[str, Any]:
    """One run folder without tokens: planned whole, half of it committed, then opened again, and its tables written."""
    store.put("run.json", json.dumps(RUN).encode())
    began_s = time.perf_counter()
    listing = Listing(Named("list.txt", _input(number)) for number in range(videos))
    store_inputs(store, listing)
    packer = ShardPacker(shard_clips, unit_clips=2)
    shards: dict[str, list[Unit]] = {}
    for rows in plan_rows(videos, video_clips, packer):
        append_rows(store, rows)
        for row in rows[: len(rows) // 2]:
            for shard_id, unit in row.units:
                shards.setdefault(shard_id, []).append(unit)
    planned_s = time.perf_counter() - began_s
    for number, (shard_id, units) in enumerate(shards.items()):
        count = sum(unit.count for unit in units)
        manifest = ShardManifest(
            shard_id=shard_id,
            fingerprint=RUN["fingerprint"],
            num_clips=count,
            files=(write_stub(store, shard_id),),
            failures=(),
            damaged_frames={},
            clips=tuple(units),
        )
        commit(store, manifest)
        if number % 1000 == 999:
            gather(store)
    shards.clear()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    store.sweep()
    state = read_state(store)
    inputs = sort_inputs(listing.once(), state, retry_failed=False)
    assert not inputs.unknown
    owed = owed_work(state, unfinished(state, shard_sizes(store), ()).to_extract, retry_failed=False)
    resumed_s, resumed_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    peak_bytes = resident_bytes("VmHWM")
    owed_shards = len(owed)
    began_s = time.perf_counter()
    handed_out = sum(len(owed.take(videos // 100, inputs.located)) for _ in range(100))
    handed_out_s = time.perf_counter() - began_s
    del inputs, owed, state
    began_s = time.perf_counter()
    write_records(store)
    return {
        "name": "plan",
        "videos": videos,
        "clips": videos * video_clips,
        "wall_s": planned_s,
        "peak_bytes": peak_bytes,
        "resume_s": resumed_s,
        "resume_cpu_s": resumed_cpu_s,
        "owed_shards": owed_shards,
        "handing_out_us": handed_out_s / max(1, handed_out) * 1e6,
        "records_s": time.perf_counter() - began_s,
        "records_peak_bytes": resident_bytes("VmHWM"),
    }


def write_stub(store: Store, shard_id: str) -> ShardFile:
    """A file in a shard's place, so that listing finds as many as in a real run."""
    name = file_name(shard_id, "parquet")
    store.put(name, b"-")
    return ShardFile(name=name, size_bytes=1, sha256=hashlib.sha256(b"-").hexdigest())


def plan_rows(videos: int, video_clips: int, packer: ShardPacker) -> Iterator[list[PlanRow]]:
    """Rows of made-up videos, in batches."""
    rows: list[PlanRow] = []
    for number in range(videos):
        source = _input(number)
        video_id = hashlib.sha256(source.uri.encode()).hexdigest()[:32]
        video = PlannedVideo(
            source=VideoSource(video_id=video_id, uri=source.uri, size_bytes=source.size_bytes, stamp=source.stamp),
            container="mov,mp4",
            codec="h264",
            pixel_format="yuv420p",
            width_px=1280,
            height_px=720,
            picture_policy="bt709, limited",
            frames_header=7500,
            frames_found=7500,
            num_clips=video_clips,
            num_instants=video_clips * CLIP_S,
            end_ns=video_clips * CLIP_S * 1_000_000_000,
        )
        rows.append(PlanRow(video, tuple(packer.pack(Unit(video_id, 0, video_clips)))))
        if len(rows) == BATCH:
            yield rows
            rows = []
    if rows:
        yield rows


def _input(number: int) -> Input:
    return Input(
        uri=f"s3://films/{number // 1000:04d}/{number:07d}.mp4", size_bytes=10_000_000 + number, stamp=f"{number:032x}"
    )
