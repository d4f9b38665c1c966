"""The processes that train one network together, and the few things that they tell each other.

Each process, a rank, computes its part of every step's clips; the gradient of the whole batch is put together before
the optimizer moves, so that all ranks hold the same weights. A single process tells nobody anything.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vtm.errors import RankError, TrainingError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process among those of the default process group, which exists where there are several.

    Raises:
        TrainingError: the rank is none of `count`.
    """

    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise TrainingError(f"ranks of {self.count} processes go from 0 to {self.count - 1}, got {self.rank}")

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes and reports."""
        return self.rank == 0

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items that are this rank's to do: every `count`-th."""
        return items[self.rank :: self.count]

    def own_seed(self, seed: int) -> int:
        """The seed of what this rank draws for its own clips: with one seed, all would drop out the same channels."""
        return seed if self.leads else random.Random(f"{seed} {self.rank}").getrandbits(63)

    def of_first(self, value: Item) -> Item:
        """What rank 0 passes, on every rank.

        Raises:
            RankError: another process is gone.
        """
        if self.count == 1:
            return value
        values: list[Any] = [value]
        with _all_answering():
            dist.broadcast_object_list(values, src=0)
        first: Item = values[0]
        return first

    def take_weights(self, model: nn.Module) -> None:
        """Give the model the weights of rank 0's, in place.

        Raises:
            RankError: another process is gone.
        """
        if self.count == 1:
            return
        with torch.no_grad(), _all_answering():
            for value in model.state_dict().values():
                dist.broadcast(value, src=0)

    def in_order(self, mine: Iterable[Item]) -> Iterator[Item]:
        """What each rank makes of its `part` of some items, in the order of those items; a single process streams it.

        Raises:
            RankError: another process is gone.
        """
        if self.count == 1:
            yield from mine
            return
        # A tuple around each, as an item may be None.
        parts: list[Any] = [None] * self.count
        own = [(item,) for item in mine]
        with _all_answering():
            dist.all_gather_object(parts, own)
        yield from chain.from_iterable(item for turn in zip_longest(*parts) for item in turn if item is not None)

    def mean_gradients(self, model: nn.Module, loss: Tensor, clips: int) -> Tensor:
        """Turn the gradients of a rank's mean loss into those of the mean over the clips of all ranks.

        Args:
            model: with gradients, which are changed in place; the same parameters have one on every rank.
            loss: a scalar, the mean over this rank's clips.
            clips: of this rank; 0 where its gradients count nothing.

        Returns:
            A scalar without gradient, the mean loss over the clips of all ranks.

        Raises:
            RankError: another process is gone.
        """
        if self.count == 1:
            return loss.detach()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        own = [*(gradient.flatten().float() for gradient in gradients), loss.detach().float().view(1)]
        # The clips ride along as a last number: to look at their sum here would make the host wait for a GPU.
        sums = torch.cat([*own, own[-1].new_ones(1)]) * clips
        with _all_answering():
            dist.all_reduce(sums)
        means = sums / sums[-1]
        sizes = [value.numel() for value in [*own, sums[-1]]]
        for gradient, mean in zip(gradients, torch.split(means, sizes), strict=False):
            gradient.copy_(mean.view_as(gradient))
        return means[-2]


ALONE = Ranks()
"""A single process."""


@contextmanager
def _all_answering() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # Of "[FILE:LINE] REASON. ADVICE", what a user can use.
        reason = re.sub(r"^\[[^\]]*\] ", "", str(error).strip()).split("\n")[0].split(". ")[0]
        raise RankError(
            f"another process of this training run was killed, or did not answer in time ({reason}): "
            "start the same command again to resume"
        ) from error
