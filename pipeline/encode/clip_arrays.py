"""A merged clip's numbers: computed together on its device, copied to the host together, put in order there.

Letters: N source patches, M merged tokens, D channels, E channels of the embedding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.cache.token_values import stored_tensors
from pipeline.shards.centers import center_order
from vtm import Grid, MergePlan, MergeTree, fidelity, token_cosines, weighted_mean
from vtm.replay import Replayed


class ClipArrays(NamedTuple):
    """Tensors while they are on the device, NumPy arrays on the host."""

    tokens_MD: Any
    """In the dtype that is stored; of bfloat16 the bits, uint16."""
    scale_M: Any
    """float32, of int8 tokens."""
    sizes_M: Any
    """int32."""
    group_N: Any
    """int64."""
    pooled_D: Any
    """float32, unit norm: the mean of the tokens, each counting as its patches do."""
    fidelity: Any
    """0-dimensional."""
    weights_M: Any
    """float32, summed weights of each token's patches; None where each weighs 1."""
    parent_M: Any
    """int64; None without a tree."""
    loss_M: Any
    """float32; None without a tree."""
    embedding_E: Any


def arrays_of(
    sources_1ND: Tensor,
    plan: MergePlan,
    dtype: str,
    *,
    weights_1N: Tensor | None = None,
    network_1MD: Tensor | None = None,
    tree: MergeTree | None = None,
    embedding_E: Tensor | None = None,
) -> ClipArrays:
    """Compute them, on the device of the sources; on a GPU nothing is waited for.

    Args:
        sources_1ND: the token of each source patch, float32.
        plan: from the N patches to the M tokens.
        dtype: of the stored tokens.
        weights_1N: of the patches, where they do not all weigh 1.
        network_1MD: the tokens, where a network made them; else they are means of the sources.
        tree: over the tokens.
        embedding_E: of the whole clip.
    """
    tokens_MD, scale_M, sizes_M, mass_M, pooled_D, cosine = _NUMBERS(
        sources_1ND, plan.group, plan.targets, weights_1N, network_1MD, dtype=dtype
    )
    return ClipArrays(
        tokens_MD=tokens_MD,
        scale_M=scale_M,
        sizes_M=sizes_M,
        group_N=plan.group[0],
        pooled_D=pooled_D,
        fidelity=cosine,
        weights_M=None if weights_1N is None else mass_M,
        parent_M=None if tree is None else tree.parents[0],
        loss_M=None if tree is None else tree.losses[0],
        embedding_E=embedding_E,
    )


def _numbers(
    sources_1ND: Tensor,
    group_1N: Tensor,
    target_1M: Tensor,
    weights_1N: Tensor | None,
    network_1MD: Tensor | None,
    *,
    dtype: str,
) -> tuple[Tensor | None, ...]:
    """Tokens, their scales, sizes and masses, the pooled vector, and how faithful the tokens are."""
    plan = MergePlan(group_1N, target_1M.shape[1], target_1M)
    if weights_1N is None:
        means_1MD = plan.sum(sources_1ND) / plan.sizes[..., None]
        mass_M = plan.sizes[0].float()
        cosine = fidelity(sources_1ND, plan, means_1MD)[0]
    else:
        means_1MD = weighted_mean(sources_1ND, plan, weights_1N)
        mass_M = plan.sum(weights_1N[..., None])[0, :, 0]
        cosine_1N = token_cosines(sources_1ND, plan, means_1MD).double()
        cosine = ((cosine_1N * weights_1N).sum() / weights_1N.double().sum()).float()
    # A network's tokens are no means, so the means measure its grouping.
    values_MD = (means_1MD if network_1MD is None else network_1MD)[0]
    tokens_MD, scale_M = stored_tensors(values_MD, dtype)
    pooled_D = normalize((values_MD * mass_M[:, None]).sum(dim=0), dim=0)
    return tokens_MD, scale_M, plan.sizes[0], mass_M, pooled_D, cosine


_NUMBERS = Replayed(_numbers)


class HostCopy:
    """Arrays on their way to the host: on a GPU through pinned memory, and waited for only when they are taken."""

    def __init__(self, arrays: ClipArrays) -> None:
        self._copied: Any = None
        on_gpu = arrays.group_N.is_cuda
        self.arrays = ClipArrays(*(None if x is None else _pinned(x) if on_gpu else x for x in arrays))
        if on_gpu:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def take(self) -> ClipArrays:
        """The arrays, when they have arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        return ClipArrays(*(None if x is None else x.numpy() for x in self.arrays))


def _pinned(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


def in_order(arrays: ClipArrays, grid: Grid) -> tuple[ClipArrays, NDArray[np.float32]]:
    """The arrays with tokens in order of their centres, indices as small as M allows; and the (M, 3) centres.

    Args:
        arrays: on the host.
        grid: T, H, W of the source patches.
    """
    num_tokens = len(arrays.sizes_M)
    index_dtype = np.uint16 if num_tokens <= 1 << 16 else np.uint32
    centers_M3, order_M = center_order(arrays.group_N, num_tokens, grid)
    place_M = np.empty_like(order_M)
    place_M[order_M] = np.arange(num_tokens)
    parent_M = arrays.parent_M
    ordered = arrays._replace(
        tokens_MD=arrays.tokens_MD[order_M],
        scale_M=_taken(arrays.scale_M, order_M),
        sizes_M=arrays.sizes_M[order_M],
        group_N=place_M[arrays.group_N].astype(index_dtype),
        weights_M=_taken(arrays.weights_M, order_M),
        parent_M=None if parent_M is None else place_M[parent_M[order_M]].astype(index_dtype),
        loss_M=_taken(arrays.loss_M, order_M),
    )
    return ordered, centers_M3[order_M]


def _taken(values_M: NDArray[Any] | None, order_M: NDArray[np.int64]) -> NDArray[Any] | None:
    return None if values_M is None else values_M[order_M]
