"""What a seed decides: a cluster, a corpus, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from random import Random
from typing import Literal

from pipeline.engine.commands import WorkerKind
from pipeline.engine.placement import ResourceRequest
from pipeline.engine.policy import STORE_SHARE, Limits, Policy
from pipeline.errors import FAILURE_CLASSES, FailureClass
from pipeline.inputs.named import Input, VideoSource
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip

CLIP_FRAMES = 60
CLIP_NS = CLIP_FRAMES * 10**9
CLIP_BYTES = 9_000_000
LIMITS = Limits(start_s=60, scan_s=30, decode_s=30, encode_s=60, write_s=60, nodes_s=10)

Ending = Literal["finish", "stop", "death"]


@dataclass(frozen=True)
class Harm:
    """What an input or a clip does to the worker that has it, each time."""

    kind: Literal["kill", "hang", "error"]
    failure: FailureClass = "crash"


@dataclass
class NodeSpec:
    name: str
    cores: int
    gpus: int
    store_bytes: int
    up_s: float = 0.0
    down_s: float | None = None
    back_s: float | None = None
    refuses: frozenset[WorkerKind] = frozenset()


@dataclass
class Scenario:
    """Everything but the chances of single calls, which the world draws as it goes."""

    policy: Policy
    nodes: list[NodeSpec]
    inputs: list[Input]
    videos: dict[str, PlannedVideo]
    """By the address of the input."""
    scan_harm: dict[str, Harm] = field(default_factory=dict)
    decode_harm: dict[Clip, Harm] = field(default_factory=dict)
    encode_harm: dict[Clip, Harm] = field(default_factory=dict)
    slow_scans: dict[str, float] = field(default_factory=dict)
    """Seconds that a scan takes, with progress."""
    disk_full_s: tuple[float, float] = (0.0, 0.0)
    sleep_s: tuple[float, float] = (0.0, 0.0)
    """When the driver's machine sleeps."""
    endings: list[tuple[Ending, float]] = field(default_factory=list)
    """How the driver's lives before the last one end, and after how long."""
    retries: int = 0
    """Runs that try again what is recorded as failed."""
    fault_share: float = 0.0
    """Chance that a call goes wrong through nobody's fault, as long as `faults` last."""
    faults: int = 0
    mean_s: dict[str, float] = field(default_factory=dict)
    transfer_s: float = 0.0
    """What it takes to fetch a clip's frames or tokens from another node."""
    tick_s: float = 1.0
    latency_s: float = 0.01


def harm(rng: Random) -> Harm:
    kind = rng.choice(("kill", "hang", "error", "error"))
    return Harm(kind, rng.choice(FAILURE_CLASSES) if kind == "error" else "crash")


def video(video_id: str, uri: str, clips: int, *, sequential: bool, short_by: int) -> PlannedVideo:
    instants = max(0, clips * CLIP_FRAMES - (short_by if clips else 0))
    return PlannedVideo(
        source=VideoSource(video_id=video_id, uri=uri, size_bytes=1),
        num_clips=clips,
        num_instants=instants,
        is_sequential=sequential,
    )


def draw(seed: int) -> Scenario:
    """The scenario of a seed. Most seeds have few kinds of trouble, so that each is also seen alone."""
    rng = Random(seed)
    trouble = rng.choice((0.0, 0.15, 0.15, 0.5))
    reserve = rng.random() < 0.6
    nodes = [
        NodeSpec(
            name=f"n{i}",
            cores=rng.choice((1, 2, 2, 4)),
            gpus=rng.choice((0, 1, 2)) if i else rng.choice((1, 2)),
            store_bytes=int(rng.choice((0.5, 2, 3, 6, 20)) * CLIP_BYTES / STORE_SHARE),
            up_s=rng.uniform(0, 20) if i and rng.random() < trouble else 0.0,
        )
        for i in range(rng.choice((1, 1, 2, 2, 3)))
    ]
    policy = Policy(
        request=ResourceRequest(
            decoders=rng.choice((None, None, 1, 3, 6)),
            gpus=rng.choice((None, None, 1, 2)),
            gpu_share=rng.choice((1.0, 1.0, 0.5)),
            reserve_gpus=reserve,
            # Of its own generator: the other seeds stay what they are.
            decode_on_gpus=Random(f"decoders of {seed}").random() < 0.1,
        ),
        fps=Fraction(1),
        clip_frames=CLIP_FRAMES,
        clip_bytes=CLIP_BYTES,
        unit_clips=rng.randint(1, 4),
        shard_clips=rng.randint(1, 8),
        limits=LIMITS,
    )
    inputs, videos = [], {}
    for i in range(rng.choice((1, 2, 4, 8, 12, 24))):
        uri = f"v{i}"
        source = Input(uri=uri, size_bytes=rng.choice((-1, 1000, 1000, 1 << 32)))
        sequential = rng.random() < 0.1
        clips = rng.randint(4, 16) if sequential else rng.choice((0, 1, 1, 2, 3, 5))
        same_as = f"id-v{rng.randrange(i)}" if i and rng.random() < 0.05 else f"id-{uri}"
        twin = next((v for v in videos.values() if v.source.video_id == same_as), None)
        if twin is not None:
            clips, sequential = twin.num_clips, twin.is_sequential
        videos[uri] = video(same_as, uri, clips, sequential=sequential, short_by=rng.choice((0, 0, 59)))
        inputs.append(source)
        if rng.random() < 0.02:
            inputs.append(source)
    scenario = Scenario(policy=policy, nodes=nodes, inputs=inputs, videos=videos)
    _add_trouble(scenario, rng, trouble)
    return scenario


def _add_trouble(scenario: Scenario, rng: Random, trouble: float) -> None:
    def strikes() -> bool:
        return rng.random() < trouble

    clips = [Clip(v.source.video_id, i) for v in scenario.videos.values() for i in range(v.num_clips)]
    for chosen, harms in ((clips, scenario.decode_harm), (clips, scenario.encode_harm)):
        if chosen and strikes():
            for clip in rng.sample(chosen, min(len(chosen), rng.choice((1, 1, 2, 5)))):
                harms[clip] = harm(rng)
    if strikes():
        scenario.scan_harm[rng.choice(scenario.inputs).uri] = harm(rng)
    if strikes():
        scenario.slow_scans[rng.choice(scenario.inputs).uri] = rng.choice((20.0, 100.0, 1200.0))
    for node in scenario.nodes:
        if strikes():
            node.down_s = node.up_s + rng.uniform(1, 60)
            if node is scenario.nodes[0] or rng.random() < 0.5:
                node.back_s = node.down_s + rng.uniform(12, 30)
        if node is not scenario.nodes[0] and strikes():
            node.refuses = frozenset({rng.choice(("encode", "encode", "decode", "write"))})
    if strikes():
        start_s = rng.uniform(0, 60)
        scenario.disk_full_s = (start_s, start_s + rng.choice((3, 10, 40)))
    if strikes():
        start_s = rng.uniform(5, 60)
        scenario.sleep_s = (start_s, start_s + rng.uniform(30, 300))
    while strikes() and len(scenario.endings) < 4:
        scenario.endings.append((rng.choice(("stop", "death", "death")), rng.choice((1, 10, 60)) * rng.random()))
    scenario.retries = int(strikes())
    scenario.fault_share = rng.choice((0.02, 0.1, 0.3)) if strikes() else 0.0
    scenario.faults = rng.choice((2, 10))
    scenario.tick_s = rng.choice((0.5, 1.0, 4.0))
    scenario.latency_s = rng.choice((0.001, 0.02, 0.5))
    bound = rng.choice(("scan", "decode", "encode", "write", ""))
    for stage, mean_s in (("scan", 0.3), ("decode", 1.5), ("encode", 0.3), ("write", 0.3), ("start", 2.0)):
        scenario.mean_s[stage] = mean_s * (8 if stage == bound else 1)
    scenario.transfer_s = rng.choice((0.0, 0.1, 2.0))
    scenario.policy = replace(scenario.policy, encode_calls_at_once=rng.choice((1, 1, 2)))
