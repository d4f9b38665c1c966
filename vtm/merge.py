"""From keys to a merge plan: the strategies of Lee et al. 2024 (arXiv:2410.23782) behind one call.

Letters: B batch, N tokens of a clip, M groups, S sources, K sources left alone, R sources merged, D key channels.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from vtm.matching import nearest_targets
from vtm.partition import complement, even_targets, num_merged, strided_targets, targets_for, tokens_left
from vtm.plan import Grid, MergeError, MergePlan, identity_plan

Strategy = Literal["none", "naive"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def merge_plan(
    keys_BND: Tensor,
    *,
    strategy: Strategy = "naive",
    grid: Grid,
    partition_factor: int | None = None,
    merge_share: float = 1.0,
    keep: float | None = None,
    num_tokens: int | None = None,
    seed: int = 0,
    motion: Tensor | None = None,
    saliency: Tensor | None = None,
) -> MergePlan:
    """Decide how the tokens of a clip merge.

    How far is said in one of three ways: `partition_factor` (the paper's γ), `keep` or `num_tokens`.

    Args:
        keys_BND: (B, N, D) keys of the tokens in t, y, x order, any float dtype; no gradient is taken.
        strategy: where the targets lie: `none` (merge nothing) or `naive` (every γ-th token).
        grid: T, H, W in patches, T·H·W = N.
        partition_factor: γ; ceil(N / γ) tokens are targets.
        merge_share: the paper's R as a share of the sources: only the floor(merge_share · |S|) most similar merge.
        keep: share of tokens left, above 0 and at most 1.
        num_tokens: number of tokens left; a clip that has no more than that is not merged.
        seed: seed of all that is sampled; the same seed gives the same plan on every device.
        motion: (B, T, H, W) or (B, N) motion magnitudes.
        saliency: (B, T, H, W) or (B, N) token scores.

    Returns:
        The plan; every group's target is the one nearest to its sources by the cosine of the keys (equation 3).

    Raises:
        MergeError: a setting is out of range, or two of them exclude each other.
    """
    check_request(keys_BND, strategy, grid, partition_factor, keep, num_tokens)
    if strategy == "none":
        return identity_plan(len(keys_BND), keys_BND.shape[1], keys_BND.device)
    total = keys_BND.shape[1]
    if partition_factor is None and keep is not None and merge_share == 1:
        partition_factor = _whole_stride(keep)
    if partition_factor is not None:
        target_M = strided_targets(total, partition_factor)
    else:
        left = tokens_left(total, keep) if keep is not None else min(num_tokens or total, total)
        target_M = even_targets(total, targets_for(total, left, merge_share))
    return plan_from_targets(keys_BND, target_M.to(keys_BND.device).expand(len(keys_BND), -1), merge_share)


def plan_from_targets(keys_BND: Tensor, target_BM: Tensor, merge_share: float = 1.0) -> MergePlan:
    """Match every source with its nearest target and merge the R closest (equations 3 to 5).

    Args:
        keys_BND: (B, N, D), any float dtype; no gradient is taken.
        target_BM: (B, M) int64, increasing in each row.
        merge_share: R as a share of the sources; the others stay as they are.

    Returns:
        A plan of M + |S| - R groups.
    """
    total = keys_BND.shape[1]
    source_BS = complement(target_BM, total)
    nearest_BS, cosine_BS = nearest_targets(keys_BND, source_BS, target_BM)
    merged = num_merged(source_BS.shape[1], merge_share)
    own_BM = target_BM
    if merged < source_BS.shape[1]:
        order_BS = cosine_BS.argsort(dim=1, descending=True, stable=True)
        source_BS, nearest_BS = source_BS.gather(1, order_BS), nearest_BS.gather(1, order_BS[:, :merged])
        own_BM = torch.cat((target_BM, source_BS[:, merged:]), dim=1).sort(dim=1).values
    return _grow(total, own_BM, source_BS[:, :merged], target_BM.gather(1, nearest_BS))


def _grow(total: int, own_BM: Tensor, source_BR: Tensor, joined_BR: Tensor) -> MergePlan:
    """Number the groups by the position of their own token, and let each source join its target's."""
    group_BN = own_BM.new_zeros(len(own_BM), total)
    rank_BM = torch.arange(own_BM.shape[1], device=own_BM.device).expand_as(own_BM)
    group_BN.scatter_(1, own_BM, rank_BM)
    group_BN.scatter_(1, source_BR, group_BN.gather(1, joined_BR))
    return MergePlan(group=group_BN, num_groups=own_BM.shape[1], targets=own_BM)


def check_request(
    keys_BND: Tensor,
    strategy: str,
    grid: Grid,
    partition_factor: int | None,
    keep: float | None,
    num_tokens: int | None,
) -> None:
    """Refuse what cannot be carried out, in one line.

    Raises:
        MergeError: as the function's name says.
    """
    if strategy not in STRATEGIES:
        raise MergeError(f"unknown strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    if keys_BND.dim() != 3:
        raise MergeError(f"keys have shape (B, N, D), got {tuple(keys_BND.shape)}")
    if grid[0] * grid[1] * grid[2] != keys_BND.shape[1]:
        raise MergeError(f"grid {tuple(grid)} does not hold the {keys_BND.shape[1]} tokens of the keys")
    asked = {"partition_factor": partition_factor, "keep": keep, "num_tokens": num_tokens}
    given = [name for name, value in asked.items() if value is not None]
    if strategy == "none" and given:
        raise MergeError(f"strategy none merges nothing, so it takes no {given[0]}")
    if strategy != "none" and len(given) != 1:
        raise MergeError(f"give one of partition_factor, keep and num_tokens, got {' and '.join(given) or 'none'}")
    for name, value in (("partition_factor", partition_factor), ("num_tokens", num_tokens)):
        if value is not None and (value != int(value) or value < 1):
            raise MergeError(f"{name} is a whole number of at least 1, got {value}")


def _whole_stride(keep: float) -> int | None:
    """The stride γ of a share 1 / γ; None where the share is no such fraction."""
    stride = round(1 / keep) if keep > 0 else 0
    return stride if stride and abs(1 / keep - stride) < 1e-9 else None
