from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from pipeline.engine.commands import Notify, StartWorker
from pipeline.engine.events import NodeUp, Tick
from pipeline.engine.placement import NodeResources, ResourceRequest, gpu_slots, place
from pipeline.engine.policy import Limits, Policy
from pipeline.engine.ray_cluster import lacks
from pipeline.engine.scheduler import Scheduler
from pipeline.engine.worker_pool import WorkerPool
from pipeline.settings import Execution

GIB = 1 << 30


def claims(commands: list[StartWorker], node: str) -> tuple[float, float]:
    return sum(c.cores for c in commands if c.node == node), sum(c.gpus for c in commands if c.node == node)


def start_missing(request: ResourceRequest, *nodes: NodeUp) -> tuple[WorkerPool, list[StartWorker]]:
    pool = WorkerPool(request, Limits())
    for node in nodes:
        pool.add_node(node)
    return pool, list(pool.start_missing(0.0))


def test_encoders_hold_a_gpu_and_a_core_and_decoders_fill_the_rest() -> None:
    wanted = place(
        {"head": NodeResources(cores=3, gpus=0), "gpu": NodeResources(cores=4, gpus=2)},
        ResourceRequest(reserve_gpus=True),
    )
    assert [(c.encoders, c.writers, c.decoders) for c in wanted.values()] == [(0, 0, 3), (2, 1, 2)]
    assert (wanted["gpu"].encoder_cores, wanted["gpu"].encoder_gpus, wanted["gpu"].decoder_cores) == (1.0, 1.0, 1.0)


def test_encoders_are_hired_first_on_all_nodes() -> None:
    nodes = (NodeUp("head", 3, 0, GIB), NodeUp("gpu", 4, 2, GIB))
    _, commands = start_missing(ResourceRequest(reserve_gpus=True), *nodes)
    assert [c.kind for c in commands] == ["encode"] * 2 + ["write"] + ["decode"] * 5
    assert claims(commands, "gpu") == (4.0, 2.0)


@pytest.mark.parametrize(
    ("gpus", "share", "slots"), [(2, 1.0, 2), (2, 0.5, 4), (2, 0.4, 4), (3, 2.0, 1), (4, 2.0, 2), (0, 1.0, 0)]
)
def test_no_encoder_has_parts_of_two_gpus(gpus: int, share: float, slots: int) -> None:
    assert gpu_slots([NodeResources(cores=8, gpus=gpus)], share) == slots


def test_as_many_gpus_as_asked_for() -> None:
    nodes = {"a": NodeResources(cores=4, gpus=2), "b": NodeResources(cores=4, gpus=2)}
    assert [c.encoders for c in place(nodes, ResourceRequest(gpus=3, reserve_gpus=True)).values()] == [2, 1]
    assert [c.encoders for c in place(nodes, ResourceRequest(gpus=0, reserve_gpus=True)).values()] == [0, 0]


@pytest.mark.parametrize("cores", [1, 2, 3, 5])
@pytest.mark.parametrize("gpus", [0, 1, 4])
@pytest.mark.parametrize("decoders", [None, 1, 8])
def test_more_workers_than_cores_share_them(cores: int, gpus: int, decoders: int | None) -> None:
    request = ResourceRequest(decoders=decoders, reserve_gpus=bool(gpus))
    _, commands = start_missing(request, NodeUp("a", cores, gpus, GIB))
    assert claims(commands, "a") <= (cores + 1e-9, gpus)
    kinds = [c.kind for c in commands]
    assert kinds.count("encode") == max(1, gpus)
    assert kinds.count("decode") == (decoders or max(1, cores - gpus))


@pytest.mark.parametrize("cores", [1, 2, 7, 31])
@pytest.mark.parametrize("gpus", [1, 2, 3])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.14])
@pytest.mark.parametrize("decoders", [None, 1, 3, 8, 40])
def test_workers_that_decode_on_gpus_fit_on_them(cores: int, gpus: int, share: float, decoders: int | None) -> None:
    request = ResourceRequest(decoders=decoders, gpu_share=share, reserve_gpus=True, decode_on_gpus=True)
    _, commands = start_missing(request, NodeUp("a", cores, gpus, GIB), NodeUp("b", 8, 0, GIB))
    assert {c.node for c in commands if c.kind == "decode"} == {"a"}
    left = [1.0] * gpus
    for command in commands:
        if command.kind != "write":
            # As Ray does: none has parts of two GPUs.
            number = next(number for number, free in enumerate(left) if free >= command.gpus - 1e-9)
            left[number] -= command.gpus
            assert command.gpus > 0
    assert [c.kind for c in commands].count("encode") == gpus * int(1 / share + 1e-9)


def test_a_cluster_without_gpus_cannot_decode_on_them() -> None:
    nodes = [NodeUp("a", 4, 0, GIB), NodeUp("b", 4, 0, GIB)]
    complaint = lacks(Execution(), nodes, decodes_on_gpus=True)
    assert complaint is not None
    assert complaint.startswith("--decoder nvdec: the cluster has no GPU on 2 nodes: leave it out")
    assert lacks(Execution(), nodes) is None
    assert lacks(Execution(), [*nodes, NodeUp("c", 4, 1, GIB)], decodes_on_gpus=True) is None


def test_a_gpu_is_not_crowded_with_decoders() -> None:
    nodes = {"a": NodeResources(cores=64, gpus=2), "b": NodeResources(cores=64, gpus=0)}
    request = ResourceRequest(reserve_gpus=True, decode_on_gpus=True)
    assert [c.decoders for c in place(nodes, request).values()] == [16, 0]
    assert place(nodes, replace(request, decoders=40))["a"].decoders == 16
    assert place(nodes, replace(request, decoders=5))["a"].decoders == 5
    assert place(nodes, replace(request, decode_on_gpus=False))["b"].decoders == 64


def test_a_late_node_moves_nobody() -> None:
    pool, commands = start_missing(ResourceRequest(decoders=4), NodeUp("a", 2, 0, GIB))
    assert [c.kind for c in commands].count("decode") == 4
    pool.add_node(NodeUp("b", 8, 0, GIB))
    assert [c.kind for c in pool.start_missing(1.0)] == ["encode", "write"]
    gone = next(c.worker for c in commands if c.kind == "decode")
    pool.remove(gone)
    assert [(c.kind, c.node) for c in pool.start_missing(2.0)] == [("decode", "b")]


def test_what_a_node_refuses_is_placed_elsewhere() -> None:
    nodes = {
        "a": NodeResources(cores=2, gpus=1, unfit=frozenset({"encode"})),
        "b": NodeResources(cores=2, gpus=1, unfit=frozenset({"decode", "write"})),
    }
    wanted = place(nodes, ResourceRequest(reserve_gpus=True))
    assert [(c.encoders, c.writers, c.decoders) for c in wanted.values()] == [(0, 1, 2), (1, 0, 0)]


def test_starts_that_fail_together_are_one_round() -> None:
    pool, commands = start_missing(ResourceRequest(decoders=6), NodeUp("a", 2, 0, GIB))
    for command in commands:
        worker = pool.remove(command.worker)
        assert worker is not None
        assert not pool.start_failed(worker, 0.1)
    assert list(pool.start_missing(0.5)) == []
    assert len(list(pool.start_missing(1.2))) == len(commands)


def test_a_worker_that_starts_slowly_is_reported_once() -> None:
    scheduler = Scheduler(
        Policy(
            request=ResourceRequest(decoders=3),
            fps=Fraction(1),
            clip_frames=3,
            clip_bytes=1,
            unit_clips=1,
            shard_clips=1,
        )
    )
    scheduler.handle(NodeUp("a", 2, 0, GIB), 0.0)
    scheduler.handle(Tick(), 0.0)
    told = []
    for now_s in range(1, 200):
        told += [c.text for c in scheduler.handle(Tick(), float(now_s)) if isinstance(c, Notify)]
    assert sorted(told) == [
        f"node a: the {kind} worker has not started for 61 s: see whether other jobs hold the node's cores or GPUs"
        for kind in ("decode", "encode", "write")
    ]
