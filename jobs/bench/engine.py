"""`vtm bench engine`: what a clip costs beside its work, and how busy the scheduler keeps a simulated cluster.

The runs in this process and on Ray have workers that do nothing; the simulated one is in virtual time.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from fractions import Fraction
from random import Random
from typing import Any

from jobs.bench.machine import machine_name

# `jobs.bench.plan` takes it from here.
from jobs.bench.memory import resident_bytes
from jobs.bench.numbers import above_zero, count
from jobs.bench.options import add_json_option
from jobs.bench.output import show
from jobs.bench.simulated_cluster import Corpus, Seconds, SimulatedCluster
from jobs.bench.square import square
from jobs.progress import Silence
from pipeline.engine import events
from pipeline.engine.placement import ResourceRequest
from pipeline.engine.policy import Policy
from pipeline.engine.scheduler import Scheduler
from pipeline.inputs.named import Input
from pipeline.read_settings import build
from pipeline.settings import Execution, Recipe

CLIP_FRAMES = 60
FRAME_BYTES = 224 * 224 * 3
TOKEN_BYTES = 2_500_000
"""Of a clip: a tenth of 60 x 256 tokens of 768 float16 numbers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--only",
        choices=("inline", "ray", "simulated"),
        nargs="+",
        default=("inline", "ray", "simulated"),
        help="what to measure: the real engines with workers that do nothing, or a simulated cluster",
    )
    parser.add_argument("--clips", type=count, default=600, help="clips of a run with workers that do nothing")
    parser.add_argument(
        "--size-px", type=count, default=224, help="side of these clips' frames in pixels; a clip has 60 frames"
    )
    parser.add_argument("--videos", type=count, default=50_000, help="videos of the simulated run")
    parser.add_argument(
        "--video-clips", type=count, default=5, help="clips of each of these videos; 5 are five minutes at 1 fps"
    )
    parser.add_argument("--nodes", type=count, default=64, help="nodes of the simulated cluster")
    parser.add_argument("--gpus", type=int, default=4, help="GPUs of each node")
    parser.add_argument("--decoders", type=count, default=64, help="decoders of each node")
    parser.add_argument("--decode-s", type=above_zero, default=2.0, help="mean time to decode a clip, in seconds")
    parser.add_argument("--encode-s", type=above_zero, default=0.1, help="mean time to encode a clip, in seconds")
    parser.add_argument("--store-bytes", type=count, default=64 << 30, help="bytes of each node's object store")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation's random times")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    rows = [simulated(args) if name == "simulated" else overhead(name, args) for name in args.only]
    show(rows, machine=machine_name(), as_json=args.json)
    return 0


def overhead(engine: str, args: argparse.Namespace) -> dict[str, Any]:
    """A run whose workers do nothing: one clip a video, so that everything that a clip may cost is in it."""
    from jobs.bench.null_workers import NULL
    from pipeline.driver import RunDriver
    from pipeline.engine.cluster import open_cluster
    from pipeline.engine.drive import drive as drive_run
    from pipeline.engine.job import Job
    from pipeline.owed import Located, Owed
    from pipeline.plan.plan import Plan
    from pipeline.run import policy_of
    from pipeline.run_description import EncoderDescription
    from pipeline.store import open_store

    execution = build(Execution, {"engine": engine, "gpus": 0})
    with tempfile.TemporaryDirectory() as folder, open_cluster(execution) as cluster:
        job = Job(
            out=open_store(folder),
            run={},
            recipe=Recipe(clip_frames=CLIP_FRAMES),
            execution=execution,
            encoder=EncoderDescription(
                name="null", revision=None, weights_sha256="", dim=8, compute_dtype="float32", device="cpu"
            ),
            picture=square(args.size_px),
            code_sha256="",
        )
        plan = Plan()
        inputs = [Input(uri=f"video-{number}-1") for number in range(args.clips)]
        driver = RunDriver(
            open_store(folder), plan, inputs, Owed(plan), Located(plan.videos), Silence(), time.perf_counter()
        )
        executor = cluster.executor(job, NULL)
        try:
            drive_run(Scheduler(policy_of(job, cluster.request)), executor, driver)
        finally:
            executor.close()
        driver.close(num_cores=executor.num_cores, num_decoders=0, num_encoders=0, shared_cores=True)
    wall_s = driver.tally.wall_s
    return {
        "name": engine,
        "clips": driver.tally.clips,
        "clip_bytes": job.clip_bytes,
        "wall_s": wall_s,
        "overhead_s_per_clip": wall_s / driver.tally.clips,
        "startup_s": driver.tally.startup_s,
    }


def simulated(args: argparse.Namespace) -> dict[str, Any]:
    """One run of the scheduler in virtual time."""
    corpus = Corpus(
        videos=args.videos,
        clips=args.video_clips,
        clip_frames=CLIP_FRAMES,
        clip_bytes=CLIP_FRAMES * FRAME_BYTES,
        token_bytes=TOKEN_BYTES,
    )
    policy = Policy(
        request=ResourceRequest(reserve_gpus=True),
        fps=Fraction(1),
        clip_frames=CLIP_FRAMES,
        clip_bytes=corpus.clip_bytes,
        unit_clips=5,
        shard_clips=100,
    )
    cluster = SimulatedCluster(corpus, Seconds(decode=args.decode_s, encode=args.encode_s), Random(args.seed))
    for i in range(args.nodes):
        cluster.at(0.0, events.NodeUp(f"n{i}", args.decoders + args.gpus, args.gpus, args.store_bytes))
    return drive(Scheduler(policy), cluster)


def drive(scheduler: Scheduler, cluster: SimulatedCluster) -> dict[str, Any]:
    """Run to the end, and say what it took; utilization is that between start-up and the last video's begin."""
    begun_s = time.perf_counter()
    spent_s, resident, half_clips = 0.0, [math.nan, math.nan], 0
    clips = cluster.corpus.videos * cluster.corpus.clips
    held = 0
    for event in cluster.events():
        before_s = time.thread_time()
        commands = scheduler.handle(event, cluster.now_s)
        spent_s += time.thread_time() - before_s
        for command in commands:
            cluster.carry_out(command)
        if isinstance(event, events.WorkerReady):
            cluster.starting -= 1
            if not cluster.starting and cluster.warm_s is None:
                cluster.start_to_measure()
        if isinstance(event, events.Tick):
            held = max(held, len(scheduler.ledger.clips))
            if cluster.clips_written >= clips / 2 and not half_clips:
                resident[0], half_clips = resident_bytes("VmRSS"), cluster.clips_written
        if scheduler.is_finished:
            break
    resident[1] = resident_bytes("VmRSS")
    warm_s = cluster.warm_s if cluster.warm_s is not None else cluster.now_s
    wall_s = cluster.all_begun_s - warm_s
    shares = {kind: stage.share(wall_s) for kind, stage in cluster.stages.items()}
    bound = max(("decode", "encode"), key=shares.__getitem__)
    return {
        "name": "simulated",
        "nodes": len(scheduler.pool.nodes),
        "decoders": cluster.stages["decode"].workers,
        "encoders": cluster.stages["encode"].workers,
        "clips": cluster.clips_written,
        "bound_by": bound,
        "utilization": shares[bound],
        "scheduler_s_per_clip": spent_s / clips,
        "healthy_kills": cluster.kills,
        "peak_bytes": resident_bytes("VmHWM"),
        "second_half_bytes_per_clip": (resident[1] - resident[0]) / max(1, clips - half_clips),
        "most_clips_held": held,
        "simulated_s": cluster.now_s,
        "wall_s": time.perf_counter() - begun_s,
    }
