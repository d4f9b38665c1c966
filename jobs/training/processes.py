"""The processes that torchrun starts for one training run: what each of them is, and how all end when one fails."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from jobs.training.device import checked_device
from pipeline.counted import counted
from pipeline.errors import EngineError, SettingsError
from vtm.training import ALONE, RankError, Ranks

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

ANSWER_LIMIT = timedelta(minutes=30)
"""How long a process waits for the others: longer than they can differ in reading caches that lie far away."""
LAST_WORD_S = 2.0
"""torchrun ends all processes when it sees the first end: that should be the one that has something to say."""
FAILED = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """One of the processes that torchrun started."""

    ranks: Ranks
    local_rank: int
    """Its number on its machine, and that of its GPU."""
    local_count: int
    """Processes on its machine."""


def place_of(environment: Mapping[str, str]) -> Place:
    """What torchrun says of this process; without torchrun it is alone, whatever else set WORLD_SIZE.

    Raises:
        SettingsError: the variables are no numbers.
    """
    if "LOCAL_RANK" not in environment or environment.get("WORLD_SIZE", "1") == "1":
        return Place(ALONE, 0, 1)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        rank, count, local_rank, local_count = (int(environment[name]) for name in names)
        return Place(Ranks(rank, count), local_rank, local_count)
    except (KeyError, ValueError) as error:
        found = ", ".join(f"{name}={environment.get(name, '')}" for name in names)
        raise SettingsError(f"{found} are not what torchrun sets: start the processes with torchrun") from error


def in_processes(work: Callable[[Ranks, str], int], device: str) -> int:
    """Do the work of this process among those of torchrun, or alone.

    Args:
        work: is told which process it is in, and its device; returns an exit code.
        device: as `--device` names it; of several processes on a machine, each takes the GPU of its number.

    Returns:
        The exit code; of a process that ends because another failed, 1.

    Raises:
        EngineError: the processes do not find each other, or one of the others was killed.
        SettingsError: the device cannot be used.
        Exception: whatever `work` raises. When several processes fail, the first raises and the others end silently.
    """
    place = place_of(os.environ)
    if place.ranks.count == 1:
        return work(ALONE, checked_device(device))
    store = _join(place.ranks, device)
    try:
        code = work(place.ranks, own_device(place, device))
    except BaseException as error:
        if not _is_first_to_fail(store):
            log.debug("process %d ends because another failed: %s", place.ranks.rank, error)
            time.sleep(LAST_WORD_S)
            return FAILED
        if isinstance(error, RankError):
            raise EngineError(str(error)) from error
        raise
    _wait_for_all_to_finish(store, place.ranks)
    dist.destroy_process_group()
    return code


def _join(ranks: Ranks, device: str) -> Store:
    # Not part of every torch: one process trains without.
    from torch.distributed.rendezvous import rendezvous

    on_gpus = device.startswith("cuda") and torch.cuda.is_available()
    try:
        found: tuple[Store, int, int] = next(rendezvous("env://", timeout=ANSWER_LIMIT))
        store, rank, count = found
        backend = "nccl" if on_gpus else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=ANSWER_LIMIT)
    except (RuntimeError, ValueError) as error:
        raise EngineError(
            f"process {ranks.rank} of {ranks.count} does not find the others ({_first_line(error)}): "
            "start them with torchrun"
        ) from error
    return store


def own_device(place: Place, name: str) -> str:
    """The device of one of several processes.

    Raises:
        SettingsError: it is not there, or names one GPU for all.
    """
    if not name.startswith("cuda"):
        return checked_device(name)
    if ":" in name:
        raise SettingsError(f"--device {name} is one GPU for {place.ranks.count} processes: say --device cuda")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < found < place.local_count:
        raise SettingsError(
            f"torchrun started {place.local_count} processes on a machine with {counted(found, 'CUDA device')}: "
            f"one a GPU, --nproc-per-node {found}, or --device cpu"
        )
    if found:
        # Before anything else touches a GPU: all processes would keep a context on the first.
        torch.cuda.set_device(place.local_rank)
    return checked_device(f"{name}:{place.local_rank}" if found else name)


def _is_first_to_fail(store: Store) -> bool:
    """Whether no other process failed before, as far as can be told."""
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:
        return True


def _wait_for_all_to_finish(store: Store, ranks: Ranks) -> None:
    """Who leaves at once may cut off another that still reads the last message."""
    try:
        if store.add("finished", 1) == ranks.count:
            store.set("all finished", "yes")
        store.wait(["all finished"], ANSWER_LIMIT)
    except RuntimeError:
        log.debug("process %d does not know whether all others finished", ranks.rank)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
