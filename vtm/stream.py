"""A merge tree over hours: tokens arrive chunk by chunk, and at most 1.5 times the wanted number and a chunk are alive.

Whenever more than 1.5 times the wanted tokens are alive, a tree over them is cut down to the wanted number. A merged
token keeps the sum of its source tokens, so that its next merge costs what it would have cost them. docs/merging.md has
the figures against one tree over everything.

Letters: W tokens wanted, K tokens alive, J new tokens, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.agglomeration import agglomerate
from vtm.errors import MergeError
from vtm.segments import segment_sum
from vtm.tree import cut_groups

SLACK = 0.5
"""Share of the wanted tokens by which those alive may exceed them."""
SURE_LOSS = 0.5
"""Share of the dearest merge so far: merges that cost less would soon be made in any case."""


class TreeStream:
    """The tokens alive, as sums of their source tokens' directions."""

    def __init__(self, num_tokens: int) -> None:
        """Begin with none.

        Raises:
            MergeError: fewer than one token is wanted.
        """
        if num_tokens < 1:
            raise MergeError(f"a stream is merged to at least 1 token, got {num_tokens}")
        self._wanted = num_tokens
        self._sum_KC: Tensor | None = None
        self._count_K = torch.zeros(0)
        self._dearest = 0.0

    @property
    def sure_loss(self) -> float:
        """New tokens may be merged beforehand where that costs at most this: fidelity then differs by .001 or less."""
        return SURE_LOSS * self._dearest

    @property
    def num_alive(self) -> int:
        """K."""
        return len(self._count_K)

    @property
    def sums(self) -> Tensor:
        """(K, C) float32 sums of unit tokens."""
        if self._sum_KC is None:
            raise MergeError("the stream holds no tokens yet")
        return self._sum_KC

    @torch.no_grad()
    def add(self, sum_JC: Tensor, count_J: Tensor) -> Tensor | None:
        """Take in tokens; their positions follow those that were alive before.

        Args:
            sum_JC: (J, C) sums of their source tokens' directions, any float dtype, finite.
            count_J: (J,) how many source tokens each is of.

        Returns:
            Where each of the tokens alive went, (K + J,) int64 in [0, W), in case they were merged; else None.
        """
        sum_JC, count_J = sum_JC.float(), count_J.to(sum_JC.device).float()
        before_KC = sum_JC[:0] if self._sum_KC is None else self._sum_KC
        self._sum_KC = torch.cat((before_KC, sum_JC))
        self._count_K = torch.cat((self._count_K.to(sum_JC.device), count_J))
        return self._merged() if self.num_alive > (1 + SLACK) * self._wanted else None

    @torch.no_grad()
    def finish(self) -> Tensor | None:
        """Merge what is alive down to the tokens wanted; returns as `add`."""
        return self._merged() if self.num_alive > self._wanted else None

    @torch.no_grad()
    def tree(self) -> tuple[Tensor, Tensor]:
        """(K,) parents and losses of the tokens alive, as `vtm.agglomeration.agglomerate` has them."""
        return agglomerate(self.sums, self._count_K)

    def _merged(self) -> Tensor:
        parent_K, loss_K = agglomerate(self.sums, self._count_K)
        _, into_1K = cut_groups(parent_K[None], loss_K[None], self._wanted)
        into_K = into_1K[0]
        self._dearest = max(self._dearest, float(loss_K.sort(descending=True).values[self._wanted]))
        left = self._wanted
        sums_and_counts = torch.cat((self.sums, self._count_K[:, None]), dim=1)
        total = segment_sum(sums_and_counts[None], into_1K, left)[0]
        self._sum_KC, self._count_K = total[:, :-1], total[:, -1]
        return into_K
