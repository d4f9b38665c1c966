"""Which workers run on which node: a function of the nodes and of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.engine.commands import WorkerKind

DECODERS_OF_A_GPU = 8
"""Most decoders that are put on a GPU: each holds a CUDA context there, and a GPU has one to seven NVDECs."""
DECODING_SHARE = 0.1
"""Of a GPU that also decodes, what its decoders claim together: for Ray's books, which limit no process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequest:
    """Workers and GPUs that the user asked for."""

    decoders: int | None = None
    """In total; None: as many as there are cores left. GPUs may hold fewer, where they decode."""
    gpus: int | None = None
    """In total; None: all, 0: none."""
    gpu_share: float = 1.0
    """Share of a GPU that an encoder takes."""
    reserve_gpus: bool = False
    """Whether encoders claim GPUs. Otherwise each node has one encoder, which shares its cores."""
    decode_on_gpus: bool = False
    """Whether decoders need a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResources:
    """Resources of a node."""

    cores: int
    gpus: int
    unfit: frozenset[WorkerKind] = frozenset()
    """Kinds of workers that cannot work here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWorkers:
    """Numbers of workers on a node, and what each reserves."""

    encoders: int = 0
    writers: int = 0
    decoders: int = 0
    encoder_cores: float = 0.0
    encoder_gpus: float = 0.0
    decoder_cores: float = 1.0
    decoder_gpus: float = 0.0

    def number_of(self, kind: WorkerKind) -> int:
        """Number of workers of one kind."""
        return {"encode": self.encoders, "write": self.writers, "decode": self.decoders}[kind]


def place(nodes: Mapping[str, NodeResources], request: ResourceRequest) -> dict[str, NodeWorkers]:
    """Say how many workers of each kind every node has.

    Encoders come first, with a GPU and a core each; decoders get what is left. A writer goes where there is an
    encoder, and claims nothing: writing takes about a hundredth of the time of the other stages.

    Args:
        nodes: In the order in which they came: a node that comes later moves nobody.
        request: What the user asked for.
    """
    encoders = _encoders(nodes, request)
    free = {name: node.cores - (encoders[name] if request.reserve_gpus else 0) for name, node in nodes.items()}
    decoders = _decoders({name: free[name] for name in nodes if _may_decode(nodes[name], request)}, request.decoders)
    if request.decode_on_gpus:
        decoders = {name: min(count, DECODERS_OF_A_GPU * nodes[name].gpus) for name, count in decoders.items()}
    can_write = [name for name, node in nodes.items() if "write" not in node.unfit]
    writers = {name for name in can_write if encoders[name]} or set(can_write[:1])
    return {
        name: NodeWorkers(
            encoders=encoders[name],
            writers=1 if name in writers else 0,
            decoders=decoders.get(name, 0),
            encoder_cores=_share(node.cores, encoders[name]) if request.reserve_gpus else 0.0,
            encoder_gpus=_encoder_gpus(request) if request.reserve_gpus else 0.0,
            decoder_cores=_share(free[name], decoders.get(name, 0)),
            decoder_gpus=_in_steps(DECODING_SHARE / DECODERS_OF_A_GPU) if request.decode_on_gpus else 0.0,
        )
        for name, node in nodes.items()
    }


def gpu_slots(nodes: Sequence[NodeResources], gpu_share: float) -> int:
    """Encoders that the GPUs of these nodes hold: none has parts of two GPUs, some may have several whole ones."""
    return sum(_slots(node.gpus, gpu_share) for node in nodes)


def _slots(gpus: int, gpu_share: float) -> int:
    if gpu_share <= 1:
        return gpus * int(1 / gpu_share + 1e-9)
    return int(gpus / gpu_share + 1e-9)


def _encoders(nodes: Mapping[str, NodeResources], request: ResourceRequest) -> dict[str, int]:
    if not request.reserve_gpus:
        return {name: 0 if "encode" in node.unfit else 1 for name, node in nodes.items()}
    left = None if request.gpus is None else _slots(request.gpus, request.gpu_share)
    placed = {}
    for name, node in nodes.items():
        slots = 0 if "encode" in node.unfit else gpu_slots([node], request.gpu_share)
        placed[name] = slots if left is None else min(slots, left)
        left = None if left is None else left - placed[name]
    return placed


def _may_decode(node: NodeResources, request: ResourceRequest) -> bool:
    return "decode" not in node.unfit and (node.gpus > 0 or not request.decode_on_gpus)


def _encoder_gpus(request: ResourceRequest) -> float:
    """What an encoder claims."""
    return _in_steps(request.gpu_share * (1 - DECODING_SHARE)) if request.decode_on_gpus else request.gpu_share


def _in_steps(share: float) -> float:
    """A share in Ray's steps of 1/10,000, rounded down: the claims on a GPU must not exceed it."""
    return int(share * 10_000 + 1e-9) / 10_000


def _decoders(free: Mapping[str, int], requested: int | None) -> dict[str, int]:
    """One for each free core; a number that was asked for goes where the most cores are free for each."""
    placed = dict.fromkeys(free, 0)
    if requested is None:
        placed = {name: max(0, cores) for name, cores in free.items()}
        requested = 0 if any(placed.values()) else 1
    for _ in range(requested if free else 0):
        chosen = max(free, key=lambda name: max(free[name], 0.01) / (placed[name] + 1))
        placed[chosen] += 1
    return placed


def _share(cores: int, workers: int) -> float:
    """Cores that each worker claims: one, or less where there are more workers than cores; or none."""
    if not workers or workers <= cores:
        return 1.0
    return int(max(cores, 0) / workers * 100) / 100
